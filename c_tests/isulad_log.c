/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A program that has iSulad's log, as libisula brings it: categories, each with a chain of appenders that format. */

#include "test.h"

#include <pthread.h>
#include <stdarg.h>
#include <time.h>

enum { TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, CRIT, ALERT, FATAL, NOTSET };

struct lxc_log_locinfo {
    const char *file;
    const char *func;
    int line;
};

struct lxc_log_event {
    const char *category;
    int priority;
    struct timespec timestamp;
    struct lxc_log_locinfo *locinfo;
    const char *fmt;
    va_list *vap;
};

struct lxc_log_appender {
    const char *name;
    int (*append)(const struct lxc_log_appender *, struct lxc_log_event *);
    struct lxc_log_appender *next;
};

struct lxc_log_category {
    const char *name;
    int priority;
    struct lxc_log_appender *appender;
    const struct lxc_log_category *parent;
};

struct seen {
    int lines;
    int priority;
    char text[8192];
};

static struct seen first_seen, second_seen, root_seen;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Takes the argument from the list as libisula's appenders do, calls the library as none does, and spoils errno. */
static int keep(struct seen *seen, struct lxc_log_event *event)
{
    char text[sizeof(seen->text)];
    int length = vsnprintf(text, sizeof(text), event->fmt, *event->vap);

    CHECK(length >= 0 && event->locinfo->line > 0);
    CHECK(strstr(event->locinfo->file, ".rs") != NULL && strstr(event->locinfo->func, "isula_storage") != NULL);
    CHECK(test_same(event->category, "lxc"));
    CHECK(event->timestamp.tv_sec > 1600000000 && event->timestamp.tv_nsec < 1000000000);
    CHECK(pthread_mutex_lock(&lock) == 0);
    seen->lines++;
    seen->priority = event->priority;
    memcpy(seen->text, text, sizeof(text));
    CHECK(pthread_mutex_unlock(&lock) == 0);
    CHECK(layer_store_delete(NULL) == -1);
    errno = ENOSPC;
    return -1;
}

static int first_append(const struct lxc_log_appender *appender, struct lxc_log_event *event)
{
    CHECK(test_same(appender->name, "first"));
    return keep(&first_seen, event);
}

static int second_append(const struct lxc_log_appender *appender, struct lxc_log_event *event)
{
    CHECK(test_same(appender->name, "second"));
    return keep(&second_seen, event);
}

static int root_append(const struct lxc_log_appender *appender, struct lxc_log_event *event)
{
    CHECK(test_same(appender->name, "root"));
    return keep(&root_seen, event);
}

static struct lxc_log_appender second = { "second", second_append, NULL };
static struct lxc_log_appender first = { "first", first_append, &second };
static struct lxc_log_appender of_root = { "root", root_append, NULL };
static struct lxc_log_category root = { "root", ERROR, &of_root, NULL };
/* The name is libisula's. */
struct lxc_log_category g_lxc_log_category_lxc = { "lxc", ERROR, &first, &root };

static void expect(int lines, int priority, const char *text)
{
    const struct seen *all[] = { &first_seen, &second_seen, &root_seen };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        CHECK(all[i]->lines == lines);
        CHECK(lines == 0 || all[i]->priority == priority);
        CHECK(lines == 0 || test_same(all[i]->text, text));
    }
    memset(&first_seen, 0, sizeof(first_seen));
    memset(&second_seen, 0, sizeof(second_seen));
    memset(&root_seen, 0, sizeof(root_seen));
}

static void the_priority_of_the_category_counts(void)
{
    const char *refused = "layer_store_delete: id is NULL";

    /* A failing call is a warning. */
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    expect(0, 0, NULL);
    g_lxc_log_category_lxc.priority = WARN;
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    expect(1, WARN, refused);
    g_lxc_log_category_lxc.priority = TRACE;
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    expect(1, WARN, refused);

    /* The parent's counts where none is set. */
    g_lxc_log_category_lxc.priority = NOTSET;
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    expect(0, 0, NULL);
    root.priority = WARN;
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    expect(1, WARN, refused);
    root.priority = NOTSET;
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    expect(0, 0, NULL);
    root.priority = ERROR;
    g_lxc_log_category_lxc.priority = DEBUG;

    /* Also what a callback is set to. */
    WORKS(isula_storage_set_log(NULL, NULL, ISULA_STORAGE_LOG_ERROR) == 0);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    expect(0, 0, NULL);
    WORKS(isula_storage_set_log(NULL, NULL, ISULA_STORAGE_LOG_TRACE) == 0);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    expect(1, WARN, refused);
}

static void a_chain_may_be_empty(void)
{
    g_lxc_log_category_lxc.appender = NULL;
    root.appender = NULL;
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    expect(0, 0, NULL);
    g_lxc_log_category_lxc.appender = &first;
    root.appender = &of_root;
}

/* Fails with the driver's name in its text. */
static void name_a_driver(char *driver)
{
    struct storage_module_init_options conf;

    memset(&conf, 0, sizeof(conf));
    conf.storage_root = "/nonexistent";
    conf.storage_run_root = "/nonexistent";
    conf.driver_name = driver;
    errno = 0;
    CHECK(layer_store_init(&conf) == -1);
    CHECK(strstr(first_seen.text, driver) != NULL);
    expect(1, WARN, isula_storage_last_error());
}

static void text_is_no_format(void)
{
    char driver[] = "%s%n%d%5$s%%";

    name_a_driver(driver);
}

static void long_text_arrives_whole(void)
{
    static char driver[6001];

    memset(driver, 'x', sizeof(driver) - 1);
    name_a_driver(driver);
}

enum { THREADS = 8, CALLS = 50 };

static void *fail_often(void *unused)
{
    (void)unused;
    for (int i = 0; i < CALLS; i++) {
        FAILS(image_store_delete(NULL) == -1, EINVAL);
    }
    return NULL;
}

static void several_threads_log_at_once(void)
{
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, fail_often, NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    expect(THREADS * CALLS, WARN, "image_store_delete: id is NULL");
}

static void on_log(int level, const char *message, void *userdata)
{
    (void)level;
    (void)message;
    ++*(int *)userdata;
}

static void a_callback_wins(void)
{
    int lines = 0;

    WORKS(isula_storage_set_log(on_log, &lines, ISULA_STORAGE_LOG_WARN) == 0);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    CHECK(lines == 1);
    expect(0, 0, NULL);
    WORKS(isula_storage_set_log(NULL, NULL, ISULA_STORAGE_LOG_TRACE) == 0);
}

int main(void)
{
    the_priority_of_the_category_counts();
    a_chain_may_be_empty();
    text_is_no_format();
    long_text_arrives_whole();
    several_threads_log_at_once();
    a_callback_wins();
    return DONE();
}
