/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Owners shifted for a user namespace, as the host structure says, or (compiled with DAEMON_FUNCTION) a function of the
 * program under the name that iSulad's daemon has.
 */

#include "archive.h"
#include "test.h"

#include <sys/stat.h>

#define REMAP "100000:200000:65535"

#if defined(DAEMON_FUNCTION)
static const char *remap;

char *conf_get_isulad_userns_remap(void);
char *conf_get_isulad_userns_remap(void)
{
    return remap == NULL ? NULL : strdup(remap);
}

static void set_remap(const char *text)
{
    remap = text;
}
#else
static void set_remap(const char *text)
{
    struct isula_storage_host host;

    memset(&host, 0, sizeof(host));
    host.size = sizeof(host);
    host.userns_remap = text;
    CHECK(isula_storage_set_host(&host) == 0);
}
#endif

static bool belongs(const char *dir, const char *name, unsigned uid, unsigned gid)
{
    char path[1024];
    struct stat found;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return lstat(path, &found) == 0 && found.st_uid == uid && found.st_gid == gid;
}

int main(int argc, char **argv)
{
    static struct archive base;
    struct storage_module_init_options conf;
    struct driver_create_opts opts = { NULL, NULL };
    struct memory_stream stream = { NULL, 0, 0, 0, 0, 0 };
    struct io_read_wrapper content = { &stream, memory_read, memory_close, 0 };
    container_inspect_graph_driver *graph = NULL;
    struct layer_opts layer;

    if (argc != 4) {
        fprintf(stderr, "usage: %s ROOT RUN_ROOT DRIVER\n", argv[0]);
        return 2;
    }
    memset(&conf, 0, sizeof(conf));
    conf.storage_root = argv[1];
    conf.storage_run_root = argv[2];
    conf.driver_name = argv[3];
    archive_add(&base, "etc/motd", "hi\n");
    archive_add(&base, ".wh.gone", "");
    archive_end(&base);
    stream.bytes = base.bytes;
    stream.len = base.len;

#if defined(DAEMON_FUNCTION)
    set_remap("100000:200000");
    FAILS(graphdriver_init(&conf) == -1, EINVAL);
    FAILS(layer_store_init(&conf) == -1, EINVAL);
#endif
    set_remap(REMAP);
    WORKS(graphdriver_init(&conf) == 0);
    WORKS(graphdriver_create_ro(ID_A, NULL, &opts) == 0);
    WORKS(graphdriver_apply_diff(ID_A, &content) == 0);
    CHECK((graph = graphdriver_get_metadata(ID_A)) != NULL);
    CHECK(belongs(graph->data->upper_dir, "", 100000, 200000));
    CHECK(belongs(graph->data->upper_dir, "etc", 100000, 200000));
    CHECK(belongs(graph->data->upper_dir, "etc/motd", 100000, 200000));
    CHECK(strcmp(argv[3], "vfs") == 0 || belongs(graph->data->upper_dir, "gone", 100000, 200000));
    isula_storage_free_graph_driver(graph);
    WORKS(graphdriver_rm_layer(ID_A) == 0);
    WORKS(graphdriver_cleanup() == 0);

    stream.position = 0;
    memset(&layer, 0, sizeof(layer));
    WORKS(layer_store_init(&conf) == 0);
    WORKS(layer_store_create(ID_A, &layer, &content, NULL) == 0);
    CHECK((graph = graphdriver_get_metadata(ID_A)) != NULL);
    CHECK(belongs(graph->data->upper_dir, "etc/motd", 100000, 200000));
    CHECK(belongs(graph->data->upper_dir, "..", 100000, 200000));
    isula_storage_free_graph_driver(graph);
    /* An open store keeps what it was opened with. */
    set_remap(NULL);
    layer.parent = (char[]){ ID_A };
    WORKS(layer_store_create(ID_B, &layer, NULL, NULL) == 0);
    CHECK((graph = graphdriver_get_metadata(ID_B)) != NULL);
    CHECK(belongs(graph->data->upper_dir, "", 100000, 200000));
    isula_storage_free_graph_driver(graph);
    layer_store_exit();
    return DONE();
}
