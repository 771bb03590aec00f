/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The commands of daemon.h that are about images and about the daemon itself. */

#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;
static int failures;
/* The daemon makes one image at a time, so that nobody sees one without its data. */
static pthread_mutex_t image_lock = PTHREAD_MUTEX_INITIALIZER;
static char flag_file[512];
static __thread char message[512];

void daemon_failed(const char *file, int line, const char *what)
{
    int code = errno;
    const char *last = isula_storage_last_error();

    pthread_mutex_lock(&output);
    fprintf(stderr, "%s:%d: failed: %s (errno %d; last error: %s; shown: %s)\n", file, line, what, code,
            last == NULL ? "none" : last, message);
    failures++;
    pthread_mutex_unlock(&output);
}

int daemon_failures(void)
{
    pthread_mutex_lock(&output);
    int count = failures;
    pthread_mutex_unlock(&output);
    return count;
}

/* iSulad's function, which the library finds in the process. */
void isulad_set_error_message(const char *format, ...);

void isulad_set_error_message(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
}

const char *daemon_message(void)
{
    return message[0] == '\0' ? NULL : message;
}

void daemon_clear_message(void)
{
    message[0] = '\0';
}

/* Made of the directory and the name; malloc'ed. */
static char *join(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = malloc(size);

    if (path != NULL) {
        snprintf(path, size, "%s/%s", dir, name);
    }
    return path;
}

static char *copy(const char *text)
{
    char *result = malloc(strlen(text) + 1);

    return result == NULL ? NULL : strcpy(result, text);
}

/* The flag file tells the next start that this one was not ended. */
static int look_for_the_flag(const char *root, bool image_layer_check, bool *check)
{
    struct stat status;
    int fd;

    snprintf(flag_file, sizeof(flag_file), "%s/NEED_CHECK", root);
    *check = stat(flag_file, &status) == 0 && image_layer_check;
    if (mkdir(root, 0700) != 0 && errno != EEXIST) {
        return -1;
    }
    fd = open(flag_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -1;
    }
    close(fd);
    return 0;
}

/* Options of the driver that concern the machine the program runs on and not what it does: a list with commas. */
static void add_options_of_the_machine(struct storage_module_init_options *opts)
{
    const char *text = getenv("DAEMON_STORAGE_OPTS");

    while (text != NULL && *text != '\0') {
        size_t len = strcspn(text, ",");
        char **grown = realloc(opts->driver_opts, (opts->driver_opts_len + 1) * sizeof(char *));

        if (grown == NULL) {
            return;
        }
        opts->driver_opts = grown;
        if ((grown[opts->driver_opts_len] = calloc(1, len + 1)) == NULL) {
            return;
        }
        memcpy(grown[opts->driver_opts_len++], text, len);
        text += text[len] == ',' ? len + 1 : len;
    }
}

static char *storage_root;

const char *daemon_storage_root(void)
{
    return storage_root;
}

int daemon_start(const struct daemon_config *config)
{
    struct storage_module_init_options *opts = calloc(1, sizeof(*opts));
    bool overlay = strcmp(config->driver, "overlay") == 0 || strcmp(config->driver, "overlay2") == 0;
    int result = -1;

    if (opts == NULL) {
        return -1;
    }
    opts->driver_name = copy(overlay ? "overlay" : config->driver);
    opts->storage_root = join(config->graph, "storage");
    opts->storage_run_root = join(config->state, "storage");
    if (config->storage_opts_len > 0) {
        opts->driver_opts = calloc(config->storage_opts_len, sizeof(char *));
        for (size_t i = 0; opts->driver_opts != NULL && i < config->storage_opts_len; i++) {
            opts->driver_opts[i] = copy(config->storage_opts[i]);
            opts->driver_opts_len++;
        }
    }
    add_options_of_the_machine(opts);
    free(storage_root);
    storage_root = copy(opts->storage_root);
    if (opts->storage_root != NULL &&
        look_for_the_flag(opts->storage_root, config->image_layer_check, &opts->integration_check) == 0) {
        result = storage_module_init(opts) == 0 ? 0 : -1;
    }
    free_storage_module_init_options(opts);
    return result;
}

void daemon_stop(void)
{
    storage_module_exit();
    free(storage_root);
    storage_root = NULL;
    unlink(flag_file);
}

/* iSulad's default host, which names are shown and kept without; the library finds the function in the process. */
char *get_hostname_to_strip(void);

char *get_hostname_to_strip(void)
{
    return copy("docker.io/");
}

/* A word that could be an id is one if there is such an image; anything else is made a whole name, without the default
 * host. Malloc'ed. */
static char *resolve(const char *image)
{
    size_t digits = strspn(image, "0123456789abcdef");
    const char *slash = strrchr(image, '/'), *colon = strrchr(image, ':');
    bool tag = colon != NULL && (slash == NULL || colon > slash);
    size_t size = strlen(image) + sizeof(":latest");
    char *name;

    if (image[digits] == '\0' && digits >= 3 && digits <= 64 && storage_image_exist(image)) {
        return copy(image);
    }
    image += strncmp(image, "docker.io/", 10) == 0 ? 10 : 0;
    image += strncmp(image, "library/", 8) == 0 ? 8 : 0;
    name = malloc(size);
    if (name != NULL) {
        snprintf(name, size, "%s%s", image, tag ? "" : ":latest");
    }
    return name;
}

static types_timestamp_t now(void)
{
    types_timestamp_t result = { 0 };
    struct timespec time;

    clock_gettime(CLOCK_REALTIME, &time);
    result.has_seconds = true;
    result.seconds = time.tv_sec;
    result.has_nanos = true;
    result.nanos = (int32_t)time.tv_nsec;
    return result;
}

/* The image's record. One that is there already will do if it stands on the same layer. */
static int create_image(const struct bundle *bundle, bool *reused)
{
    types_timestamp_t created = { true, 1700000000, true, 5 };
    struct storage_img_create_options opts = { &created, (char *)bundle->manifest_digest };
    const char *top = bundle->layers[bundle->layers_len - 1].id;
    char *present;
    int result = 0;

    *reused = false;
    if (storage_img_create(bundle->id, top, NULL, &opts) == 0) {
        return 0;
    }
    present = storage_get_img_top_layer(bundle->id);
    if (present == NULL || strcmp(present, top) != 0) {
        result = -1;
    }
    *reused = true;
    free(present);
    return result;
}

static int fill_image(const struct bundle *bundle, enum daemon_failure failure)
{
    types_timestamp_t loaded = now();

    if (failure == FAIL_AFTER_CREATE) {
        return -1;
    }
    if (storage_img_set_big_data(bundle->id, bundle->config_digest, bundle->config) != 0 ||
        failure == FAIL_AFTER_CONFIG) {
        return -1;
    }
    if (storage_img_set_big_data(bundle->id, "manifest", bundle->manifest) != 0 || failure == FAIL_AFTER_MANIFEST) {
        return -1;
    }
    if (storage_img_set_loaded_time(bundle->id, &loaded) != 0) {
        return -1;
    }
    return storage_img_set_image_size(bundle->id) == 0 ? 0 : -1;
}

static int create_layer(const struct bundle_layer *layer, const char *parent)
{
    storage_layer_create_opts_t opts;

    memset(&opts, 0, sizeof(opts));
    opts.parent = parent;
    opts.uncompress_digest = layer->diff_id;
    opts.compressed_digest = layer->digest;
    opts.layer_data_path = layer->file;
    return storage_layer_create(layer->id, &opts);
}

struct pull {
    const struct bundle *bundle;
    const char *held;
    bool present[BUNDLE_LAYERS];
    bool made[BUNDLE_LAYERS];
};

/* Whether a layer that is here is the one that the image needs as its number `i`. */
static bool fits(const struct layer *layer, size_t i, const char *parent)
{
    if (layer->parent == NULL) {
        return i == 0;
    }
    return parent != NULL && strcmp(layer->parent, parent) == 0 &&
           strcmp(layer->uncompressed_digest, layer->compressed_digest) != 0;
}

/* Layers that are here need no download: they are held, the newest one at a time. */
static void find_layers(struct pull *pull)
{
    const struct bundle *bundle = pull->bundle;
    const char *parent = NULL;

    for (size_t i = 0; i < bundle->layers_len; i++) {
        struct layer_list *list = storage_layers_get_by_compress_digest(bundle->layers[i].digest);

        for (size_t j = 0; list != NULL && j < list->layers_len && !pull->present[i]; j++) {
            struct layer *layer = list->layers[j];

            if (!fits(layer, i, parent) || strcmp(layer->id, bundle->layers[i].id) != 0 ||
                storage_inc_hold_refs(layer->id) != 0) {
                continue;
            }
            pull->held = bundle->layers[i].id;
            if (parent != NULL && storage_dec_hold_refs(parent) != 0) {
                continue;
            }
            pull->present[i] = true;
        }
        parent = pull->present[i] ? bundle->layers[i].id : NULL;
        free_layer_list(list);
    }
}

static int register_layers(struct pull *pull)
{
    const char *parent = NULL;

    for (size_t i = 0; i < pull->bundle->layers_len; i++) {
        const struct bundle_layer *layer = &pull->bundle->layers[i];

        if (pull->present[i]) {
            struct layer *found = storage_layer_get(layer->id);

            if (found == NULL) {
                return -1;
            }
            free_layer(found);
            MUST(storage_layer_try_repair_lowers(layer->id, parent) == 0);
        } else {
            if (create_layer(layer, parent) != 0) {
                return -1;
            }
            pull->made[i] = true;
            pull->held = layer->id;
            if (parent != NULL && storage_dec_hold_refs(parent) != 0) {
                return -1;
            }
        }
        parent = layer->id;
    }
    return 0;
}

/* `taken` tells that the layers are the image's now: its deletion takes them away. */
static int register_pulled(const struct bundle *bundle, const char *name, enum daemon_failure failure, bool *taken)
{
    bool reused = false, created = false;
    int result;

    pthread_mutex_lock(&image_lock);
    result = create_image(bundle, &reused);
    if (result == 0) {
        result = storage_img_add_name(bundle->id, name);
        if (result != 0 && !reused) {
            MUST(storage_img_delete(bundle->id, true) == 0);
        }
    }
    if (result == 0 && !reused) {
        *taken = true;
        created = true;
        result = fill_image(bundle, failure);
    }
    pthread_mutex_unlock(&image_lock);
    if (result != 0 && created) {
        MUST(storage_img_delete(bundle->id, true) == 0);
    }
    return result;
}

int daemon_pull(const struct bundle *bundle, const char *name, enum daemon_failure failure)
{
    struct pull pull = { bundle, NULL, { false }, { false } };
    imagetool_image_summary *summary = storage_img_get_summary(name);
    bool same = summary != NULL && strcmp(summary->id, bundle->id) == 0, taken = false;
    int result;

    isula_storage_free_imagetool_image_summary(summary);
    if (same) {
        return 0;
    }
    find_layers(&pull);
    result = register_layers(&pull);
    if (result == 0) {
        result = failure == FAIL_AFTER_LAYERS ? -1 : register_pulled(bundle, name, failure, &taken);
    }
    if (pull.held != NULL) {
        MUST(storage_dec_hold_refs(pull.held) == 0);
    }
    for (size_t i = bundle->layers_len; result != 0 && !taken && i-- > 0;) {
        if (pull.made[i]) {
            /* The daemon only logs a failure: another may have removed the layer meanwhile. */
            (void)storage_layer_chain_delete(bundle->layers[i].id);
            break;
        }
    }
    return result;
}

int daemon_load(const struct bundle *bundle, const char *const *names, size_t names_len)
{
    const char *held = NULL, *parent = NULL;
    bool present[BUNDLE_LAYERS] = { false }, created = false, reused;
    int result = 0;

    for (size_t i = 0; i < bundle->layers_len && result == 0; i++) {
        if (storage_inc_hold_refs(bundle->layers[i].id) != 0) {
            continue;
        }
        held = bundle->layers[i].id;
        present[i] = true;
        if (parent != NULL && storage_dec_hold_refs(parent) != 0) {
            result = -1;
        }
        parent = held;
    }
    parent = NULL;
    for (size_t i = 0; i < bundle->layers_len && result == 0; i++) {
        const struct bundle_layer *layer = &bundle->layers[i];

        if (present[i]) {
            /* The size of a layer that is here comes from the store. */
            struct layer *found = storage_layer_get(layer->id);

            result = found != NULL ? 0 : -1;
            free_layer(found);
        } else if ((result = create_layer(layer, parent)) == 0) {
            held = layer->id;
            if (parent != NULL && storage_dec_hold_refs(parent) != 0) {
                result = -1;
            }
        }
        parent = layer->id;
    }
    if (result == 0 && (result = create_image(bundle, &reused)) == 0) {
        for (size_t i = 0; i < names_len && result == 0; i++) {
            result = storage_img_add_name(bundle->id, names[i]);
        }
        if (result == 0) {
            created = true;
            result = fill_image(bundle, FAIL_NOT);
        }
    }
    if (result != 0 && created) {
        MUST(storage_img_delete(bundle->id, true) == 0);
    }
    if (held != NULL) {
        MUST(storage_dec_hold_refs(held) == 0);
    }
    return result;
}

int daemon_import(const struct bundle *bundle, const char *name)
{
    bool reused;
    int result;

    if (create_layer(&bundle->layers[0], NULL) != 0) {
        return -1;
    }
    result = create_image(bundle, &reused);
    if (result == 0) {
        result = storage_img_add_name(bundle->id, name);
        if (result == 0) {
            result = fill_image(bundle, FAIL_NOT);
        }
    }
    MUST(storage_dec_hold_refs(bundle->layers[0].id) == 0);
    if (result != 0) {
        MUST(storage_img_delete(bundle->id, true) == 0);
    }
    return result;
}

int daemon_tag(const char *image, const char *name)
{
    char *source = resolve(image), *target = resolve(name);
    int result = source == NULL || target == NULL ? -1 : storage_img_add_name(source, target);

    if (result != 0) {
        isulad_set_error_message("Failed to tag image with error: %s", "add name failed when run isula tag");
    }
    free(source);
    free(target);
    return result;
}

int daemon_rmi(const char *image)
{
    char *name = resolve(image), *id = NULL, **names = NULL, **kept = NULL;
    size_t names_len = 0, kept_len = 0;
    int result = -1;

    if (name == NULL || storage_img_get_names(name, &names, &names_len) != 0) {
        goto out;
    }
    id = storage_img_get_image_id(name);
    if (id == NULL) {
        goto out;
    }
    if (names_len == 1 || strncmp(id, name, strlen(name)) == 0) {
        result = storage_img_delete(name, true);
        goto out;
    }
    kept = calloc(names_len + 1, sizeof(char *));
    for (size_t i = 0; kept != NULL && i < names_len; i++) {
        if (strcmp(names[i], name) != 0) {
            kept[kept_len++] = names[i];
        }
    }
    result = storage_img_set_names(name, (const char **)kept, kept_len);
out:
    free(name);
    free(id);
    free(kept);
    isula_storage_free_strings(names, names_len);
    return result;
}

static int ask_for_images(void)
{
    imagetool_images_list *list = calloc(1, sizeof(*list));
    size_t known = storage_get_img_count();
    int result = list == NULL || storage_get_all_images(list) != 0 ? -1 : 0;

    for (size_t i = 0; result == 0 && i < list->images_len; i++) {
        MUST(strlen(list->images[i]->id) == 64 && list->images[i]->top_layer != NULL);
    }
    isula_storage_free_imagetool_images_list(list);
    return known == (size_t)-1 ? -1 : result;
}

int daemon_ask(void)
{
    imagetool_fs_info *usage = calloc(1, sizeof(*usage));
    struct graphdriver_status *status = graphdriver_get_status();
    int result = ask_for_images();

    if (status == NULL || status->driver_name == NULL || status->backing_fs == NULL || status->status == NULL) {
        result = -1;
    }
    if (usage == NULL || storage_get_images_fs_usage(usage) != 0 || usage->image_filesystems_len != 1 ||
        usage->image_filesystems[0]->fs_id->mountpoint == NULL) {
        result = -1;
    }
    free_graphdriver_status(status);
    isula_storage_free_imagetool_fs_info(usage);
    return result;
}

int daemon_inspect(const char *image, const char *id)
{
    char *name = resolve(image);
    imagetool_image *found = name == NULL ? NULL : storage_img_get(name);
    int result = found != NULL && strcmp(found->id, id) == 0 && found->spec != NULL && found->size > 0 ? 0 : -1;

    isula_storage_free_imagetool_image(found);
    free(name);
    return result;
}
