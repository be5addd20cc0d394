"""JAX's Orbax and Flax, and Keras 3 on JAX; in an environment of their own, without PyTorch.

    train_jax.py ROOT RUN...                 trains
    train_jax.py ROOT --resume CHECKPOINT    (orbax) goes on from there, and prints the losses of six steps

orbax          CheckpointManager, asynchronous, of which the newest two are kept
flax           flax.training.checkpoints, of which the newest two are kept
flax-msgpack   flax.serialization.to_bytes into step_N.msgpack
keras          ModelCheckpoint into m_N.keras and w-step_N.weights.h5
keras-backup   BackupAndRestore: latest.weights.h5 and training_metadata.json, written again each epoch
keras-orbax    OrbaxCheckpoint, of which the newest two are kept
"""
import os
import pathlib
import sys
import time

os.environ.update(JAX_PLATFORMS="cpu", KERAS_BACKEND="jax")

import flax.serialization
import flax.training.checkpoints
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import orbax.checkpoint

from recorder import Recorder

VOCABULARY, WIDTH = 1000, 128
SAVES, EVERY = 5, 2  # steps, or epochs
PAUSE = 0.7  # seconds a step
EPOCHS = {"keras": 0.4, "keras-backup": 2.4, "keras-orbax": 1.0}  # seconds between two


class Run:
    optimizer = optax.adamw(1e-3)

    def __init__(self):
        keys = iter(jax.random.split(jax.random.PRNGKey(0), 16))
        layer = lambda: {"up": jax.random.normal(next(keys), (WIDTH, 4 * WIDTH)),
                         "down": jax.random.normal(next(keys), (4 * WIDTH, WIDTH))}
        parameters = {"embedding": jax.random.normal(next(keys), (VOCABULARY, WIDTH)), "layers": [layer() for _ in range(4)]}
        self.parameters = jax.tree.map(lambda x: 0.02 * x, parameters)
        self.state = self.optimizer.init(self.parameters)
        self.update = jax.jit(self._update)

    @staticmethod
    def _loss(parameters, tokens, targets):
        x = parameters["embedding"][tokens]
        for layer in parameters["layers"]:
            x = x + jax.nn.gelu(x @ layer["up"]) @ layer["down"]
        return optax.softmax_cross_entropy_with_integer_labels(x @ parameters["embedding"].T, targets).mean()

    def _update(self, parameters, state, tokens, targets):
        loss, gradients = jax.value_and_grad(self._loss)(parameters, tokens, targets)
        updates, state = self.optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, loss

    def train(self, step):
        tokens = jax.random.randint(jax.random.PRNGKey(step), (4, 33), 0, VOCABULARY)
        self.parameters, self.state, loss = self.update(self.parameters, self.state, tokens[:, :-1], tokens[:, 1:])
        return float(loss)

    def all(self):
        return {"parameters": self.parameters, "optimizer": self.state}


def train_by(save):
    run = Run()
    for step in range(1, SAVES * EVERY + 1):
        run.train(step)
        time.sleep(PAUSE)
        if step % EVERY == 0:
            save(run, step)


def train_orbax(recorder):
    manager = orbax.checkpoint.CheckpointManager(recorder.watched, options=orbax.checkpoint.CheckpointManagerOptions(
        max_to_keep=2, enable_async_checkpointing=True))

    def save(run, step):
        manager.save(step, args=orbax.checkpoint.args.StandardSave(run.all()))
        manager.wait_until_finished()
        recorder.complete(recorder.watched / str(step), step, ".", keep=True)

    train_by(save)
    manager.close()


def resume_orbax(checkpoint):
    run = Run()
    path = pathlib.Path(checkpoint)
    with orbax.checkpoint.CheckpointManager(path.parent) as manager:
        saved = manager.restore(int(path.name), args=orbax.checkpoint.args.StandardRestore(run.all()))
    run.parameters, run.state = saved["parameters"], saved["optimizer"]
    print("losses", *(run.train(int(path.name) + 1 + i).hex() for i in range(6)))


def train_flax(recorder):
    def save(run, step):
        path = flax.training.checkpoints.save_checkpoint(recorder.watched, run.all(), step, keep=2)
        recorder.complete(path, step, ".")

    train_by(save)


def train_msgpack(recorder):
    def save(run, step):
        path = recorder.watched / f"step_{step}.msgpack"
        path.write_bytes(flax.serialization.to_bytes(run.all()))
        recorder.complete(path, step)

    train_by(save)


class Notes(keras.callbacks.Callback):
    """The last of the callbacks: what the others wrote is there. what(epoch): paths, steps and markers."""

    def __init__(self, recorder, what):
        super().__init__()
        self.recorder, self.what = recorder, what

    def on_epoch_end(self, epoch, logs=None):
        for path, step, marker in self.what(epoch):
            self.recorder.complete(self.recorder.watched / path, step, marker)
        time.sleep(EPOCHS[self.recorder.run])


def train_keras(recorder):
    watched = str(recorder.watched)
    callbacks, what = {
        "keras": ([keras.callbacks.ModelCheckpoint(watched + "/m_{epoch}.keras"),
                   keras.callbacks.ModelCheckpoint(watched + "/w-step_{epoch}.weights.h5", save_weights_only=True),
                   keras.callbacks.ModelCheckpoint(watched + "/latest.keras")],
                  lambda epoch: [(f"m_{epoch + 1}.keras", epoch + 1, None), (f"w-step_{epoch + 1}.weights.h5", epoch + 1, None)]),
        "keras-backup": ([keras.callbacks.BackupAndRestore(watched + "/backup", delete_checkpoint=False)],
                         lambda epoch: [("backup", epoch + 1, None)]),
        "keras-orbax": ([keras.callbacks.OrbaxCheckpoint(watched, save_freq="epoch", max_to_keep=2, save_on_background=False)],
                        lambda epoch: [(str(epoch), epoch, ".")]),
    }[recorder.run]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(4 * WIDTH, "gelu"), keras.layers.Dense(WIDTH)])
    model.compile("adamw", "mse")
    data = np.random.default_rng(0).normal(size=(64, WIDTH)).astype("float32")
    model.fit(data, data, epochs=SAVES, batch_size=16, verbose=0, callbacks=[*callbacks, Notes(recorder, what)])


if __name__ == "__main__":
    if sys.argv[2] == "--resume":
        resume_orbax(sys.argv[3])
    else:
        for name in sys.argv[2:]:
            {"orbax": train_orbax, "flax": train_flax, "flax-msgpack": train_msgpack}.get(name, train_keras)(
                Recorder(sys.argv[1], name))
