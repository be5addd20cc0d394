/*
 * main.c - tpded's command line.
 *
 * The daemon stays in the foreground: systemd, and people at a terminal, want that; there is no fork, no pid file, no
 * log file.
 */
#include "base/tpd.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "codec/codec.h"
#include "daemon/daemon.h"
#include "daemon/log.h"

static const char usage[] =
	"usage: tpded [--config FILE] [--check-config] [--verbose]\n"
	"\n"
	"Watches the output directories of training runs and stores each finished checkpoint.\n"
	"\n"
	"  -c, --config FILE   the configuration (" TPD_CONFIG_DEFAULT_FILE ")\n"
	"      --check-config  read it, say what is wrong, and end\n"
	"  -v, --verbose       log more\n"
	"  -h, --help          this text\n"
	"  -V, --version\n"
	"\n"
	"SIGTERM stops it, SIGHUP makes it read the configuration again.\n"
	"Exit codes: 0 stopped on request, 1 failed, 2 usage or configuration, 5 corrupt, 6 busy.\n";

/* A CPU that computes wrongly, or a wrong word in the environment, is told before anything is stored. */
static enum tpd_status check_codec(bool tell, struct tpd_err *err)
{
	const char *use, *proof, *broken;
	enum tpd_status status = tpd_codec_forms(&use, &proof, &broken, err);

	if (status != TPD_OK)
		return status;
	if (tell)
		tpd_log(TPD_LOG_INFO, "the codec runs in its %s form, proved by %s", use, proof);
	if (broken)
		tpd_log(TPD_LOG_WARNING, "the codec's %s form does not give its known answers on this machine and is not used: is the CPU sound?",
			broken);
	return TPD_OK;
}

static int check_config(const struct tpd_config *config)
{
	printf("%s: OK, store %s, %zu watch%s\n", config->file, config->store_path, config->watch_count,
	       config->watch_count == 1 ? "" : "es");
	for (size_t i = 0; i < config->watch_count; i++)
		printf("  %s: %s, settle %g s\n", config->watches[i].name, config->watches[i].path,
		       (double)config->watches[i].settle_ms / 1000);
	return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"config", required_argument, NULL, 'c'}, {"check-config", no_argument, NULL, 'k'},
		{"verbose", no_argument, NULL, 'v'},      {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0},
	};
	const char *file = TPD_CONFIG_DEFAULT_FILE;
	enum tpd_log_level most = TPD_LOG_INFO;
	struct tpd_config config;
	struct tpd_err err = {0};
	bool check = false;
	int option, code;

	while ((option = getopt_long(argc, argv, "c:vhV", long_options, NULL)) != -1) {
		switch (option) {
		case 'c':
			file = optarg;
			break;
		case 'k':
			check = true;
			break;
		case 'v':
			most = TPD_LOG_DEBUG;
			break;
		case 'h':
			fputs(usage, stdout);
			return fflush(stdout) == 0 ? 0 : 1;
		case 'V':
			puts("tpded " TPD_VERSION);
			return fflush(stdout) == 0 ? 0 : 1;
		default:
			fputs("Try 'tpded --help'.\n", stderr);
			return 2;
		}
	}
	tpd_log_open(most);
	if (optind < argc) {
		tpd_log(TPD_LOG_ERROR, "'%s' is no option; try 'tpded --help'", argv[optind]);
		return 2;
	}
	if (tpd_config_read(file, TPD_CONFIG_PATHS, &config, &err) != TPD_OK) {
		tpd_log(TPD_LOG_ERROR, "%s", err.text);
		return err.status == TPD_NOMEM ? 1 : 2;
	}
	if (check_codec(!check, &err) != TPD_OK) {
		tpd_log(TPD_LOG_ERROR, "%s", err.text);
		tpd_config_release(&config);
		return err.status == TPD_USAGE ? 2 : 1;
	}
	if (check) {
		code = check_config(&config);
		tpd_config_release(&config);
	} else {
		umask(umask(0077) | 0027); /* checkpoints may be private: nobody else reads the store, whoever starts us how */
		code = tpd_daemon_run(&(struct tpd_daemon_options){.config = &config});
	}
	tpd_log_close();
	return code;
}
