/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The last error of each thread, the log's callback, what the host is told. */

#include "archive.h"
#include "test.h"

#include <pthread.h>
#include <stdarg.h>

struct seen {
    int lines;
    int level;
    char text[512];
};

/* Keeps the line, and calls the library: a callback may. */
static void on_log(int level, const char *message, void *userdata)
{
    struct seen *seen = userdata;

    seen->lines++;
    seen->level = level;
    snprintf(seen->text, sizeof(seen->text), "%s", message);
    free_layer(NULL);
    errno = ENOSPC;
}

static void on_error(const char *message, void *userdata)
{
    struct seen *seen = userdata;

    seen->lines++;
    snprintf(seen->text, sizeof(seen->text), "%s", message);
    errno = ENOSPC;
}

static void *other_thread(void *unused)
{
    (void)unused;
    return isula_storage_last_error() == NULL ? NULL : &test_failures;
}

static void the_last_error_belongs_to_a_thread(void)
{
    pthread_t thread;
    void *result = NULL;
    const char *first;

    CHECK(isula_storage_last_error() == NULL);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    first = isula_storage_last_error();
    CHECK(test_same(first, "layer_store_delete: id is NULL"));

    WORKS(layer_store_umount(NULL, false) == 0);
    CHECK(isula_storage_last_error() == first);
    CHECK(test_same(first, "layer_store_delete: id is NULL"));

    CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == NULL);

    FAILS(layer_store_delete(NOT_UTF8) == -1, EILSEQ);
    CHECK(strstr(isula_storage_last_error(), "id is not UTF-8") != NULL);
    FAILS(layer_store_delete(ID_A) == -1, ENODEV);
    CHECK(strstr(isula_storage_last_error(), "is not open") != NULL);
}

static void the_log_goes_to_the_callback(void)
{
    struct seen seen = { 0, 0, "" };

    FAILS(isula_storage_set_log(on_log, &seen, ISULA_STORAGE_LOG_TRACE + 1) == -1, EINVAL);
    FAILS(isula_storage_set_log(on_log, &seen, -1) == -1, EINVAL);
    CHECK(seen.lines == 0);

    WORKS(isula_storage_set_log(on_log, &seen, ISULA_STORAGE_LOG_ERROR) == 0);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    CHECK(seen.lines == 0);

    WORKS(isula_storage_set_log(on_log, &seen, ISULA_STORAGE_LOG_WARN) == 0);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    CHECK(seen.lines == 1);
    CHECK(seen.level == ISULA_STORAGE_LOG_WARN);
    CHECK(test_same(seen.text, "layer_store_delete: id is NULL"));

    WORKS(isula_storage_set_log(on_log, &seen, ISULA_STORAGE_LOG_OFF) == 0);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    CHECK(seen.lines == 1);
    WORKS(isula_storage_set_log(NULL, NULL, ISULA_STORAGE_LOG_ERROR) == 0);
}

/* A name cannot end a line and begin one of its own, nor speak to the terminal of whoever reads the log. */
static void a_line_of_the_log_is_one_line(void)
{
    char root[] = "/dev/null/a\nforged: all is well\x1b[2J", driver[] = "vfs";
    struct storage_module_init_options conf;
    struct seen seen = { 0, 0, "" };

    memset(&conf, 0, sizeof(conf));
    conf.storage_root = root;
    conf.storage_run_root = root;
    conf.driver_name = driver;
    WORKS(isula_storage_set_log(on_log, &seen, ISULA_STORAGE_LOG_WARN) == 0);
    FAILS(layer_store_init(&conf) == -1, ENOTDIR);
    CHECK(seen.lines == 1);
    CHECK(strstr(seen.text, "/dev/null/a\\nforged: all is well\\u{1b}[2J") != NULL);
    CHECK(strpbrk(seen.text, "\n\x1b") == NULL);
    WORKS(isula_storage_set_log(NULL, NULL, ISULA_STORAGE_LOG_ERROR) == 0);
}

/* Fails inside of a callback, which would be told of that in turn, without end. */
static void on_log_that_fails(int level, const char *message, void *userdata)
{
    on_log(level, message, userdata);
    CHECK(layer_store_lookup("of the callback") == NULL);
    CHECK(layer_store_delete(NULL) == -1);
}

static void on_error_that_fails(const char *message, void *userdata)
{
    on_error(message, userdata);
    CHECK(layer_store_delete(NULL) == -1);
}

static void a_callback_may_fail_itself(void)
{
    struct seen logged = { 0, 0, "" }, shown = { 0, 0, "" };
    struct isula_storage_host host;

    memset(&host, 0, sizeof(host));
    host.size = sizeof(host);
    host.userdata = &shown;
    host.set_error_message = on_error_that_fails;
    WORKS(isula_storage_set_host(&host) == 0);
    WORKS(isula_storage_set_log(on_log_that_fails, &logged, ISULA_STORAGE_LOG_TRACE) == 0);
    FAILS(image_store_delete(NULL) == -1, EINVAL);
    CHECK(logged.lines == 1);
    CHECK(shown.lines == 1);
    CHECK(test_same(shown.text, "image_store_delete: id is NULL"));
    CHECK(test_same(isula_storage_last_error(), "image_store_delete: id is NULL"));
    WORKS(isula_storage_set_log(NULL, NULL, ISULA_STORAGE_LOG_ERROR) == 0);
    host.set_error_message = NULL;
    WORKS(isula_storage_set_host(&host) == 0);
}

static void the_host_is_shown_errors(void)
{
    struct seen seen = { 0, 0, "" };
    struct isula_storage_host host;

    memset(&host, 0, sizeof(host));
    FAILS(isula_storage_set_host(NULL) == -1, EINVAL);
    FAILS(isula_storage_set_host(&host) == -1, EINVAL);

    host.size = sizeof(host);
    host.userdata = &seen;
    host.set_error_message = on_error;
    WORKS(isula_storage_set_host(&host) == 0);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    CHECK(seen.lines == 1);
    CHECK(test_same(seen.text, "layer_store_delete: id is NULL"));

    /* A bad struct changes nothing. */
    seen.lines = 0;
    host.userns_remap = "1:2";
    host.set_error_message = NULL;
    FAILS(isula_storage_set_host(&host) == -1, EINVAL);
    host.userns_remap = NULL;
    host.root_dir = NOT_UTF8;
    FAILS(isula_storage_set_host(&host) == -1, EILSEQ);
    host.root_dir = NULL;
    host.default_registry_host = NOT_UTF8;
    FAILS(isula_storage_set_host(&host) == -1, EILSEQ);
    CHECK(seen.lines == 3);

    /* Members beyond the size that the caller knows are not read. */
    seen.lines = 0;
    host.set_error_message = on_error;
    host.size = offsetof(struct isula_storage_host, default_registry_host);
    WORKS(isula_storage_set_host(&host) == 0);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    CHECK(seen.lines == 1);
    host.size = offsetof(struct isula_storage_host, set_error_message);
    WORKS(isula_storage_set_host(&host) == 0);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    CHECK(seen.lines == 1);
}

/* iSulad's own function, which the library finds in the process unless the host has set another. */
static char from_process[512];

void isulad_set_error_message(const char *format, ...);

void isulad_set_error_message(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(from_process, sizeof(from_process), format, arguments);
    va_end(arguments);
}

/* Only texts that are made for people go there: of other failures iSulad has its own texts, which stay. */
static void the_process_keeps_its_own_texts_if_the_host_is_silent(void)
{
    struct isula_storage_host host;

    memset(&host, 0, sizeof(host));
    host.size = sizeof(host);
    WORKS(isula_storage_set_host(&host) == 0);
    isulad_set_error_message("%s", "what the daemon says");
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    FAILS(layer_store_delete(ID_A) == -1, ENODEV);
    CHECK(test_same(from_process, "what the daemon says"));
}

static void make_layer(const char *root)
{
    static struct archive archive;
    storage_layer_create_opts_t opts;
    char path[2048];
    FILE *file;

    snprintf(path, sizeof(path), "%s.tar", root);
    archive_add(&archive, "etc/", NULL);
    archive_end(&archive);
    file = fopen(path, "w");
    CHECK(file != NULL && fwrite(archive.bytes, 1, archive.len, file) == archive.len && fclose(file) == 0);
    memset(&opts, 0, sizeof(opts));
    opts.layer_data_path = path;
    WORKS(storage_layer_create(ID_A, &opts) == 0);
}

/* The text is the same for the daemon, exactly; the callback of another engine gets why the call failed. */
static void people_are_told_who_uses_an_image(char *root)
{
    char driver[] = "vfs", run[2048];
    struct storage_module_init_options conf;
    struct storage_img_create_options image;
    struct isula_storage_host host;
    struct seen seen = { 0, 0, "" };
    types_timestamp_t now = { true, 1600000000, false, 0 };

    snprintf(run, sizeof(run), "%s-run", root);
    memset(&conf, 0, sizeof(conf));
    conf.storage_root = root;
    conf.storage_run_root = run;
    conf.driver_name = driver;
    WORKS(storage_module_init(&conf) == 0);
    make_layer(root);
    memset(&image, 0, sizeof(image));
    image.create_time = &now;
    WORKS(storage_img_create(ID_B, ID_A, NULL, &image) == 0);
    CHECK(storage_rootfs_create(ID_C, ID_B, NULL, NULL, NULL) == 0);

    isulad_set_error_message("%s", "what the daemon says");
    CHECK(storage_img_delete(ID_B, true) == -1);
    CHECK(test_same(from_process, "Image used by " ID_C));

    isulad_set_error_message("%s", "what the daemon says");
    memset(&host, 0, sizeof(host));
    host.size = sizeof(host);
    host.userdata = &seen;
    host.set_error_message = on_error;
    WORKS(isula_storage_set_host(&host) == 0);
    CHECK(storage_img_delete(ID_B, true) == -1);
    CHECK(seen.lines == 1);
    CHECK(test_same(seen.text, isula_storage_last_error()) && strstr(seen.text, ID_C) != NULL);
    CHECK(test_same(from_process, "what the daemon says"));
    host.set_error_message = NULL;
    WORKS(isula_storage_set_host(&host) == 0);
    storage_module_exit();
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s ROOT\n", argv[0]);
        return 2;
    }
    the_last_error_belongs_to_a_thread();
    the_log_goes_to_the_callback();
    a_line_of_the_log_is_one_line();
    a_callback_may_fail_itself();
    the_host_is_shown_errors();
    the_process_keeps_its_own_texts_if_the_host_is_silent();
    people_are_told_who_uses_an_image(argv[1]);
    return DONE();
}
