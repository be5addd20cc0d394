/*
 * cmd_config_check.c - `tpdectl config-check FILE`: what tpded would say of its configuration, and what it would watch.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>

static enum tpd_status print_text(const struct tpd_config *config, struct tpd_err *err)
{
	static const char *const titles[] = {"WATCH", ">SETTLE", "PATH"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	enum tpd_status status = TPD_OK;

	for (size_t i = 0; i < config->watch_count; i++) {
		tpd_table_add(&table, config->watches[i].name);
		tpd_table_addf(&table, "%.3g s", (double)config->watches[i].settle_ms / 1000);
		tpd_table_add(&table, config->watches[i].path);
	}
	printf("OK: store '%s', control socket '%s', %zu watch%s\n", config->store_path, config->control_socket,
	       config->watch_count, config->watch_count == 1 ? "" : "es");
	if (config->watch_count > 0)
		status = tpd_table_print(&table, 0, err);
	tpd_table_release(&table);
	return status;
}

static int print_json(const struct tpd_ctl *ctl, const struct tpd_config *config)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);

	tpd_json_begin_object(&out);
	tpd_json_key(&out, "file");
	tpd_json_put_string(&out, config->file);
	tpd_json_key(&out, "store");
	tpd_json_put_string(&out, config->store_path);
	tpd_json_key(&out, "catalog");
	tpd_json_put_string(&out, config->catalog_path);
	tpd_json_key(&out, "control_socket");
	tpd_json_put_string(&out, config->control_socket);
	tpd_json_key(&out, "watches");
	tpd_json_begin_array(&out);
	for (size_t i = 0; i < config->watch_count; i++) {
		tpd_json_begin_object(&out);
		tpd_json_key(&out, "name");
		tpd_json_put_string(&out, config->watches[i].name);
		tpd_json_key(&out, "path");
		tpd_json_put_string(&out, config->watches[i].path);
		tpd_json_key(&out, "settle");
		tpd_json_put_f64(&out, (double)config->watches[i].settle_ms / 1000);
		tpd_json_end_object(&out);
	}
	tpd_json_end_array(&out);
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, TPD_EXIT_DONE);
}

int tpd_cmd_config_check(struct tpd_ctl *ctl, int argc, char **argv)
{
	const char *file = argc > 0 ? argv[0] : ctl->config_file ? ctl->config_file : TPD_CONFIG_DEFAULT_FILE;
	struct tpd_config config = {0};
	struct tpd_err err = {0};
	int code = TPD_EXIT_DONE;

	if (tpd_ctl_read_config(file, TPD_CONFIG_PATHS, &config, &err))
		return tpd_ctl_fail(ctl, &err);
	if (config.watch_count == 0)
		tpd_ctl_warn(ctl, "'%s' watches nothing: it has no [watch:NAME] section", file);
	if (ctl->json)
		code = print_json(ctl, &config);
	else if (print_text(&config, &err))
		code = tpd_ctl_fail(ctl, &err);
	tpd_config_release(&config);
	return code;
}
