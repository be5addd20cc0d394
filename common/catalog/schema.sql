-- The catalog of a store: what is in it, its statistics, and the daemon's jobs and events.
-- Comments inside the parentheses stay in the database: `.schema` in the sqlite3 shell shows them.
--
-- A rebuilt catalog must have the same dump as the one before, whatever the order of the inserts was; so no table
-- but jobs and events has a key that is counted up.  Checkpoints are numbered by their id, all below by their place.

CREATE TABLE runs (
	-- Training output directories of which something is stored. Their numbers are in the view savings.
	run TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
	-- What a run completed at one step. The same step stored again with other content is its next version.
	checkpoint INTEGER NOT NULL PRIMARY KEY, -- the first 63 bits of id, by which the other tables refer to it
	id TEXT NOT NULL UNIQUE CHECK (length(id) = 64), -- SHA-256, in hex, of its logical manifest
	run TEXT NOT NULL REFERENCES runs (run),
	step INTEGER NOT NULL CHECK (step >= 0),
	version INTEGER NOT NULL CHECK (version >= 0), -- RUN@STEP~VERSION
	kind TEXT NOT NULL CHECK (kind IN ('dir', 'file')),
	source TEXT, -- where it was read
	created_ns INTEGER NOT NULL, -- when it was stored; nanoseconds since 1970
	size INTEGER NOT NULL CHECK (size >= 0), -- bytes of its files
	stored INTEGER NOT NULL CHECK (stored >= 0), -- bytes of its objects in the store, manifest included
	depth INTEGER NOT NULL CHECK (depth >= 0), -- links of the chain below it; 0: a keyframe
	files INTEGER NOT NULL CHECK (files >= 0), -- rows it has in files
	tensors INTEGER NOT NULL CHECK (tensors >= 0), -- rows with a name it has in tensors
	UNIQUE (run, step, version)
) STRICT;

CREATE TABLE refs (
	-- What a checkpoint refers to.
	checkpoint INTEGER NOT NULL REFERENCES checkpoints (checkpoint) ON DELETE CASCADE,
	role TEXT NOT NULL CHECK (role IN ('base', 'w1')), -- base: to decode it; w1: of its statistics
	target TEXT NOT NULL CHECK (length(target) = 64), -- an id; it may be forgotten, or not be entered yet
	step INTEGER CHECK (step >= 0), -- of the target; known for w1
	PRIMARY KEY (checkpoint, role)
) STRICT, WITHOUT ROWID;

CREATE TABLE files (
	-- What a checkpoint consists of.
	checkpoint INTEGER NOT NULL REFERENCES checkpoints (checkpoint) ON DELETE CASCADE,
	file INTEGER NOT NULL CHECK (file >= 0), -- its place in the checkpoint, from 0
	path TEXT NOT NULL, -- below the checkpoint
	type TEXT NOT NULL CHECK (type IN ('file', 'symlink', 'dir')),
	format TEXT, -- as recognised: 'safetensors' and others; NULL: no regular file
	target TEXT, -- of a symlink
	mode INTEGER NOT NULL, -- permission bits
	mtime_ns INTEGER NOT NULL,
	size INTEGER NOT NULL CHECK (size >= 0), -- bytes
	stored INTEGER NOT NULL CHECK (stored >= 0), -- bytes in the store
	sha256 TEXT, -- as sha256sum prints it; NULL: no regular file
	PRIMARY KEY (checkpoint, file)
) STRICT, WITHOUT ROWID;

CREATE TABLE tensors (
	-- The arrays in a file, and how each was stored. One row without a name stands for the bytes between them.
	checkpoint INTEGER NOT NULL,
	file INTEGER NOT NULL,
	segment INTEGER NOT NULL CHECK (segment >= 0), -- its place in the file
	name TEXT NOT NULL,
	layer INTEGER, -- the first whole number in the name; NULL: none, or the name is a mere key ('data/12')
	kind TEXT NOT NULL, -- the name without that number: the same for all layers
	dtype TEXT NOT NULL,
	encoding TEXT NOT NULL,
	shape TEXT, -- '[256,688]'; NULL: unknown
	size INTEGER NOT NULL CHECK (size >= 0), -- bytes
	stored INTEGER NOT NULL CHECK (stored >= 0), -- bytes in the store
	PRIMARY KEY (checkpoint, file, segment),
	FOREIGN KEY (checkpoint, file) REFERENCES files (checkpoint, file) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE sparsity (
	-- Statistics of a tensor of floats: its values x and, from `pairs` on, delta = x - w1, w1 being the value at
	-- the same place in the checkpoint of the highest lower step of the run. Without a w1 of the same type and
	-- size these columns are NULL. All are counts; the view sparsity_history has shares.
	checkpoint INTEGER NOT NULL,
	file INTEGER NOT NULL,
	segment INTEGER NOT NULL,
	elements INTEGER NOT NULL,
	nan INTEGER NOT NULL, -- NaN among x
	inf INTEGER NOT NULL, -- infinities among x
	value_min REAL, value_max REAL, value_rms REAL, -- of the finite x
	pairs INTEGER, -- places where x and w1 are both finite
	zeros INTEGER, -- delta = 0
	raw_1e5 INTEGER, raw_1e4 INTEGER, raw_1e3 INTEGER, raw_1e2 INTEGER, -- |delta| < 1e-5 .. 1e-2
	minmax_1e5 INTEGER, minmax_1e4 INTEGER, minmax_1e3 INTEGER, minmax_1e2 INTEGER, -- the same of |delta| / max
	ulps_0 INTEGER, ulps_1 INTEGER, ulps_2 INTEGER, ulps_3 INTEGER, ulps_4 INTEGER, -- ulps_N: x is less than 2^N
	ulps_5 INTEGER, ulps_6 INTEGER, ulps_7 INTEGER, ulps_8 INTEGER, ulps_9 INTEGER, -- representable values from w1
	ulps_10 INTEGER, ulps_11 INTEGER, ulps_12 INTEGER, ulps_13 INTEGER, ulps_14 INTEGER,
	ulps_15 INTEGER, ulps_16 INTEGER,
	delta_min REAL, delta_max REAL, delta_rms REAL,
	percentile_stride INTEGER, -- 1: the percentiles are exact; N: from every Nth block of 64 elements
	p90 REAL, p92_5 REAL, p95 REAL, p97_5 REAL, p99 REAL, p99_5 REAL, -- percentiles of |delta|, nearest rank
	gap_count INTEGER, -- gaps between the places where |delta| > p95
	gap_elias_bits REAL, gap_rice_bits REAL, -- mean bits a gap costs in Elias delta and in the best Rice code
	gap_entropy REAL, -- bits a gap
	PRIMARY KEY (checkpoint, file, segment),
	FOREIGN KEY (checkpoint, file, segment) REFERENCES tensors (checkpoint, file, segment) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
	-- What happened; the newest ten thousand.
	number INTEGER NOT NULL PRIMARY KEY,
	time_ns INTEGER NOT NULL,
	level TEXT NOT NULL CHECK (level IN ('info', 'warning', 'error')),
	run TEXT,
	text TEXT NOT NULL
) STRICT;

CREATE VIEW chain AS
	-- Every checkpoint with what it was stored against.
	SELECT c.run, c.step, c.version, c.depth,
		CASE WHEN r.target IS NULL THEN 'keyframe' ELSE 'delta' END AS kind,
		coalesce(b.run || '@' || b.step || '~' || b.version, r.target) AS reference,
		c.size, c.stored, round(1.0 * c.size / c.stored, 3) AS ratio
	FROM checkpoints AS c
	LEFT JOIN refs AS r ON r.checkpoint = c.checkpoint AND r.role = 'base'
	LEFT JOIN checkpoints AS b ON b.id = r.target
	ORDER BY c.run, c.step, c.version;

CREATE VIEW savings AS
	-- What a run would take, what it takes, in bytes, and the share of it that is saved.
	SELECT run, count(*) AS checkpoints, min(step) AS first_step, max(step) AS last_step, max(depth) AS max_depth,
		sum(size) AS size, sum(stored) AS stored, sum(size) - sum(stored) AS saved,
		round(100.0 * (sum(size) - sum(stored)) / sum(size), 1) AS saved_percent,
		round(1.0 * sum(size) / sum(stored), 3) AS ratio
	FROM checkpoints GROUP BY run ORDER BY run;

CREATE VIEW tensor_statistics AS
	-- The table sparsity with the names of what each row is about, where there is a w1.
	SELECT c.run, c.step, c.version, f.path AS file, t.layer, t.kind, t.name AS tensor, t.dtype, t.encoding,
		t.size, t.stored,
		s.elements, s.nan, s.inf, s.value_min, s.value_max, s.value_rms, s.pairs, s.zeros,
		s.raw_1e5, s.raw_1e4, s.raw_1e3, s.raw_1e2, s.minmax_1e5, s.minmax_1e4, s.minmax_1e3, s.minmax_1e2,
		s.ulps_0, s.ulps_1, s.ulps_2, s.ulps_3, s.ulps_4, s.ulps_5, s.ulps_6, s.ulps_7, s.ulps_8,
		s.ulps_9, s.ulps_10, s.ulps_11, s.ulps_12, s.ulps_13, s.ulps_14, s.ulps_15, s.ulps_16,
		s.delta_min, s.delta_max, s.delta_rms,
		s.percentile_stride, s.p90, s.p92_5, s.p95, s.p97_5, s.p99, s.p99_5,
		s.gap_count, s.gap_elias_bits, s.gap_rice_bits, s.gap_entropy
	FROM checkpoints AS c
	JOIN files AS f ON f.checkpoint = c.checkpoint
	JOIN tensors AS t ON t.checkpoint = f.checkpoint AND t.file = f.file
	JOIN sparsity AS s ON s.checkpoint = t.checkpoint AND s.file = t.file AND s.segment = t.segment
	WHERE s.pairs IS NOT NULL;

CREATE VIEW sparsity_history (run, step, layer, kind, tensor, threshold, normalisation, sparsity, version, file) AS
	-- One row a tensor, threshold and normalisation: the share of elements whose delta is below the threshold.
	-- 'raw': |delta| < threshold; 'min-max': |delta| / max |delta| < threshold; 'log': nearer than threshold ulps.
	-- NULL when no pair is finite. A query for one threshold and normalisation reads one branch of the union only.
	SELECT run, step, layer, kind, tensor, 1e-5, 'raw', 1.0 * raw_1e5 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 1e-4, 'raw', 1.0 * raw_1e4 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 1e-3, 'raw', 1.0 * raw_1e3 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 1e-2, 'raw', 1.0 * raw_1e2 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 1e-5, 'min-max', 1.0 * minmax_1e5 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 1e-4, 'min-max', 1.0 * minmax_1e4 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 1e-3, 'min-max', 1.0 * minmax_1e3 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 1e-2, 'min-max', 1.0 * minmax_1e2 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 1.0, 'log', 1.0 * ulps_0 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 2.0, 'log', 1.0 * ulps_1 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 4.0, 'log', 1.0 * ulps_2 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 8.0, 'log', 1.0 * ulps_3 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 16.0, 'log', 1.0 * ulps_4 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 32.0, 'log', 1.0 * ulps_5 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 64.0, 'log', 1.0 * ulps_6 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 128.0, 'log', 1.0 * ulps_7 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 256.0, 'log', 1.0 * ulps_8 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 512.0, 'log', 1.0 * ulps_9 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 1024.0, 'log', 1.0 * ulps_10 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 2048.0, 'log', 1.0 * ulps_11 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 4096.0, 'log', 1.0 * ulps_12 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 8192.0, 'log', 1.0 * ulps_13 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 16384.0, 'log', 1.0 * ulps_14 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 32768.0, 'log', 1.0 * ulps_15 / pairs, version, file
		FROM tensor_statistics
	UNION ALL SELECT run, step, layer, kind, tensor, 65536.0, 'log', 1.0 * ulps_16 / pairs, version, file
		FROM tensor_statistics;

-- From here on what version 2 added: catalog.c has the same words for catalogs that were made before.
CREATE TABLE metrics (
	-- What a checkpoint's trainer told of it: eval_loss and the like.
	checkpoint INTEGER NOT NULL REFERENCES checkpoints (checkpoint) ON DELETE CASCADE,
	metric TEXT NOT NULL,
	value REAL NOT NULL,
	PRIMARY KEY (checkpoint, metric)
) STRICT, WITHOUT ROWID;

CREATE VIEW metric_history AS
	-- The table metrics with the names of the checkpoints.
	SELECT c.run, c.step, c.version, m.metric, m.value
	FROM checkpoints AS c
	JOIN metrics AS m ON m.checkpoint = c.checkpoint
	ORDER BY c.run, m.metric, c.step, c.version;

-- And from here on what version 3 made anew: a path may be watched under another name than before.
CREATE TABLE jobs (
	-- The daemon's queue. A job is one state of one path, for one run: the same path with the same fingerprint is no new job.
	number INTEGER NOT NULL PRIMARY KEY,
	run TEXT NOT NULL,
	path TEXT NOT NULL,
	step INTEGER NOT NULL CHECK (step >= 0),
	fingerprint TEXT NOT NULL, -- of the names, sizes and times of what was captured
	state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'missed')),
	attempts INTEGER NOT NULL, -- times it was started
	queued_ns INTEGER NOT NULL,
	changed_ns INTEGER NOT NULL,
	message TEXT, -- the last error
	checkpoint TEXT, -- the id, when done
	UNIQUE (path, fingerprint, run)
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state);
