/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Declares every documented prototype again: a function whose signature has drifted does not compile. The header is
 * included twice on purpose, and once more in another unit (unit.c).
 */

#include "isula_storage.h"
#include "isula_storage.h"
#include "test.h"

/* Design documents of the image store. */
int new_image_store(bool daemon, bool readonly, const char *dir, image_store_t *image_store);

/* Design document of the layer store. */
int layer_store_init(const struct storage_module_init_options *conf);
void layer_store_exit(void);
int layer_store_create(const char *id, const struct layer_opts *opts, const struct io_read_wrapper *content,
                       char **new_id);
int layer_inc_hold_refs(const char *layer_id);
int layer_dec_hold_refs(const char *layer_id);
int layer_get_hold_refs(const char *layer_id, int *ref_num);
int layer_store_delete(const char *id);
bool layer_store_exists(const char *id);
int layer_store_list(struct layer_list *resp);
int layer_store_by_compress_digest(const char *digest, struct layer_list *resp);
int layer_store_by_uncompress_digest(const char *digest, struct layer_list *resp);
struct layer *layer_store_lookup(const char *name);
char *layer_store_mount(const char *id);
int layer_store_umount(const char *id, bool force);
int layer_store_get_layer_fs_info(const char *layer_id, imagetool_fs_info *fs_info);
container_inspect_graph_driver *layer_store_get_metadata_by_layer_id(const char *id);

/* layer_store.h of iSulad. */
void layer_store_cleanup(void);
void remove_layer_list_tail(void);
int layer_store_try_repair_lowers(const char *id);
int layer_store_check(const char *id);
void free_layer_opts(struct layer_opts *opts);
void free_layer_store_mount_opts(struct layer_store_mount_opts *opts);

/* driver.h of iSulad. */
int graphdriver_init(const struct storage_module_init_options *opts);
int graphdriver_create_rw(const char *id, const char *parent, struct driver_create_opts *create_opts);
int graphdriver_create_ro(const char *id, const char *parent, const struct driver_create_opts *create_opts);
int graphdriver_rm_layer(const char *id);
char *graphdriver_mount_layer(const char *id, const struct driver_mount_opts *mount_opts);
int graphdriver_umount_layer(const char *id);
bool graphdriver_layer_exists(const char *id);
int graphdriver_apply_diff(const char *id, const struct io_read_wrapper *content);
container_inspect_graph_driver *graphdriver_get_metadata(const char *id);
struct graphdriver_status *graphdriver_get_status(void);
int graphdriver_try_repair_lowers(const char *id, const char *parent);
int graphdriver_get_layer_fs_info(const char *id, imagetool_fs_info *fs_info);
int graphdriver_cleanup(void);
void free_graphdriver_mount_opts(struct driver_mount_opts *opts);
void free_graphdriver_status(struct graphdriver_status *status);

/* storage.h of iSulad. */
void free_layer(struct layer *layer);
void free_layer_list(struct layer_list *list);
struct layer_list *storage_layers_get_by_compress_digest(const char *digest);
int storage_module_init(struct storage_module_init_options *opts);
void storage_module_exit(void);
void free_storage_module_init_options(struct storage_module_init_options *opts);
int storage_img_create(const char *id, const char *parent_id, const char *metadata,
                       struct storage_img_create_options *opts);
imagetool_image *storage_img_get(const char *img_id);
imagetool_image_summary *storage_img_get_summary(const char *img_id);
int storage_img_set_big_data(const char *img_id, const char *key, const char *val);
int storage_img_add_name(const char *img_id, const char *img_name);
int storage_img_delete(const char *img_id, bool commit);
int storage_img_set_loaded_time(const char *img_id, types_timestamp_t *loaded_time);
int storage_img_get_names(const char *img_id, char ***names, size_t *names_len);
int storage_img_set_names(const char *img_id, const char **names, size_t names_len);
int storage_img_set_image_size(const char *image_id);
char *storage_img_get_image_id(const char *img_name);
int storage_get_all_images(imagetool_images_list *images);
int storage_get_images_fs_usage(imagetool_fs_info *fs_info);
char *storage_get_img_top_layer(const char *id);
size_t storage_get_img_count(void);
bool storage_image_exist(const char *image_or_id);
int storage_layer_create(const char *layer_id, storage_layer_create_opts_t *opts);
int storage_layer_chain_delete(const char *layer_id);
struct layer *storage_layer_get(const char *layer_id);
int storage_layer_try_repair_lowers(const char *layer_id, const char *last_layer_id);
int storage_inc_hold_refs(const char *layer_id);
int storage_dec_hold_refs(const char *layer_id);
int storage_broken_rw_layer_delete(const char *layer_id);
int storage_rootfs_create(const char *container_id, const char *image, const char *mount_label,
                          json_map_string_string *storage_opts, char **mountpoint);
int storage_rootfs_delete(const char *container_id);
int storage_rootfs_fs_usgae(const char *container_id, imagetool_fs_info *fs_info);
char *storage_rootfs_mount(const char *container_id);
int storage_rootfs_umount(const char *container_id, bool force);
char *storage_rootfs_get_dir(void);
container_inspect_graph_driver *storage_get_metadata_by_container_id(const char *id);

/* Of iSulad's storage.c, exported without a declaration. */
bool is_parent_layer_of_other_layer(const char *layer_id, const char *last_deleted_layer_id,
                                    const struct layer_list *all_layers);

/* rootfs_store.h and rootfs.h of iSulad. */
int rootfs_store_init(struct storage_module_init_options *opts);
void rootfs_store_free(void);
char *rootfs_store_create(const char *id, const char **names, size_t names_len, const char *image, const char *layer,
                          const char *metadata, struct storage_rootfs_options *rootfs_opts);
char *rootfs_store_lookup(const char *id);
int rootfs_store_delete(const char *id);
int rootfs_store_wipe(void);
int rootfs_store_set_metadata(const char *id, const char *metadata);
int rootfs_store_save(cntrootfs_t *c);
bool rootfs_store_exists(const char *id);
storage_rootfs *rootfs_store_get_rootfs(const char *id);
int rootfs_store_get_all_rootfs(struct rootfs_list *all_rootfs);
char *rootfs_store_get_data_dir(void);
cntrootfs_t *new_rootfs(storage_rootfs *scntr);
void rootfs_ref_inc(cntrootfs_t *c);
void rootfs_ref_dec(cntrootfs_t *c);
void free_rootfs_t(cntrootfs_t *ptr);

/* image_store.h of iSulad. */
int image_store_init(struct storage_module_init_options *opts);
void image_store_free(void);
char *image_store_create(const char *id, const char **names, size_t names_len, const char *layer, const char *metadata,
                         const types_timestamp_t *time, const char *searchable_digest);
char *image_store_lookup(const char *id);
bool image_store_exists(const char *id);
int image_store_delete(const char *id);
int image_store_set_big_data(const char *id, const char *key, const char *data);
char *image_store_big_data(const char *id, const char *key);
int64_t image_store_big_data_size(const char *id, const char *key);
char *image_store_big_data_digest(const char *id, const char *key);
int image_store_big_data_names(const char *id, char ***names, size_t *names_len);
int image_store_get_names(const char *id, char ***names, size_t *names_len);
int image_store_add_name(const char *id, const char *name);
int image_store_set_names(const char *id, const char **names, size_t names_len);
int image_store_set_metadata(const char *id, const char *metadata);
char *image_store_metadata(const char *id);
int image_store_set_load_time(const char *id, const types_timestamp_t *time);
int image_store_set_image_size(const char *id, uint64_t size);
char *image_store_top_layer(const char *id);
size_t image_store_get_images_number(void);
imagetool_image *image_store_get_image(const char *id);
imagetool_image_summary *image_store_get_image_summary(const char *id);
int image_store_get_all_images(imagetool_images_list *images_list);
int image_store_get_fs_info(imagetool_fs_info *fs_info);

/* This library's own additions. */
const char *isula_storage_version(void);
const char *isula_storage_last_error(void);
int isula_storage_set_log(void (*callback)(int level, const char *message, void *userdata), void *userdata, int level);
int isula_storage_set_host(const struct isula_storage_host *host);
const struct isula_storage_layout_entry *isula_storage_abi_layout(size_t *len);
void free_image_store(image_store_t *image_store);
void isula_storage_free_string(char *text);
void isula_storage_free_strings(char **texts, size_t len);
void isula_storage_clear_layer_list(struct layer_list *list);
void isula_storage_free_storage_rootfs(storage_rootfs *rootfs);
void isula_storage_clear_rootfs_list(struct rootfs_list *list);
void isula_storage_clear_image(image_storage_images *image);
void isula_storage_free_images(image_storage_images *images, size_t len);
void isula_storage_free_imagetool_image(imagetool_image *image);
void isula_storage_free_imagetool_image_summary(imagetool_image_summary *summary);
void isula_storage_free_imagetool_images_list(imagetool_images_list *list);
void isula_storage_clear_imagetool_images_list(imagetool_images_list *list);
void isula_storage_free_imagetool_fs_info(imagetool_fs_info *info);
void isula_storage_clear_imagetool_fs_info(imagetool_fs_info *info);
void isula_storage_free_graph_driver(container_inspect_graph_driver *driver);
int isula_storage_layer_limit(const char *layer_id, uint64_t *bytes);
int isula_storage_layer_export(const char *id, const struct io_write_wrapper *writer);
int isula_storage_layer_diff(const char *id, const char *parent, const struct io_write_wrapper *writer);
int isula_storage_layer_changes(const char *id, const char *parent, struct isula_storage_layer_changes_list *changes);
int isula_storage_layer_diff_size(const char *id, const char *parent, int64_t *bytes);
void isula_storage_clear_layer_changes(struct isula_storage_layer_changes_list *changes);

/* Docker's image store. */
int docker_image_store_map(struct docker_image_store *store, struct docker_image **images, size_t *len);
int docker_image_store_heads(struct docker_image_store *store, struct docker_image **images, size_t *len);
int docker_image_store_children(struct docker_image_store *store, const char *id, char ***ids, size_t *len);
int docker_image_store_problems(struct docker_image_store *store, struct docker_image_problem **problems, size_t *len);
int docker_image_store_add_name(struct docker_image_store *store, const char *name, const char *id, bool force);
int docker_image_store_delete_name(struct docker_image_store *store, const char *name);
char *docker_image_store_by_name(struct docker_image_store *store, const char *name);
int docker_image_store_names(struct docker_image_store *store, const char *id, char ***names, size_t *len);
int docker_image_store_list_names(struct docker_image_store *store, const char *repository, struct docker_image_name **names, size_t *len);
struct docker_image_layer *docker_image_store_layer(struct docker_image_store *store, const char *chain_id);
void docker_image_store_free_image(struct docker_image *image);
void docker_image_store_free_images(struct docker_image *images, size_t len);
void docker_image_store_free_removed_layers(struct docker_image_removed_layer *layers, size_t len);
void docker_image_store_free_names(struct docker_image_name *names, size_t len);
void docker_image_store_free_problems(struct docker_image_problem *problems, size_t len);
void docker_image_store_free_layer(struct docker_image_layer *layer);
struct docker_image_store *docker_image_store_open(const char *root, const struct docker_image_store_options *options, const struct docker_image_layers *layers);
void docker_image_store_close(struct docker_image_store *store);
char *docker_image_store_create(struct docker_image_store *store, const void *config, size_t len);
struct docker_image *docker_image_store_get(struct docker_image_store *store, const char *id);
int docker_image_store_delete(struct docker_image_store *store, const char *id, struct docker_image_removed_layer **removed, size_t *removed_len);
char *docker_image_store_search(struct docker_image_store *store, const char *term);
int docker_image_store_set_parent(struct docker_image_store *store, const char *id, const char *parent);
char *docker_image_store_get_parent(struct docker_image_store *store, const char *id);
size_t docker_image_store_len(struct docker_image_store *store);
int docker_image_store_set_last_updated(struct docker_image_store *store, const char *id);
int docker_image_store_get_last_updated(struct docker_image_store *store, const char *id, types_timestamp_t *time);
int docker_image_store_set_built_locally(struct docker_image_store *store, const char *id);
int docker_image_store_is_built_locally(struct docker_image_store *store, const char *id);
int docker_image_store_add_removed_layer(struct docker_image_removed_layers *removed, const char *chain_id, const char *diff_id, uint64_t size, uint64_t diff_size);

/* Image metadata as containerd keeps it. */
struct containerd_images *containerd_images_open(const char *file, const struct containerd_images_options *options);
int containerd_images_close(struct containerd_images *images);
int containerd_images_init_db(struct containerd_images *images);
struct containerd_images_transaction *containerd_images_begin(struct containerd_images *images, bool write);
int containerd_images_commit(struct containerd_images_transaction *transaction);
int containerd_images_rollback(struct containerd_images_transaction *transaction);
int containerd_images_tx_put(struct containerd_images_transaction *transaction, const char *name, ptrdiff_t name_len,
                             const struct containerd_images_descriptor *target);
int containerd_images_tx_get(struct containerd_images_transaction *transaction, const char *name, ptrdiff_t name_len,
                             struct containerd_images_image *image);
int containerd_images_tx_list(struct containerd_images_transaction *transaction,
                              struct containerd_images_image_list *list);
int containerd_images_tx_delete(struct containerd_images_transaction *transaction, const char *name,
                                ptrdiff_t name_len);
int containerd_images_put(struct containerd_images *images, const char *name, ptrdiff_t name_len,
                          const struct containerd_images_descriptor *target);
int containerd_images_get(struct containerd_images *images, const char *name, ptrdiff_t name_len,
                          struct containerd_images_image *image);
int containerd_images_list(struct containerd_images *images, struct containerd_images_image_list *list);
int containerd_images_delete(struct containerd_images *images, const char *name, ptrdiff_t name_len);
int containerd_images_error(void);
bool containerd_images_is_not_found(void);
bool containerd_images_is_exists(void);
void containerd_images_clear_image(struct containerd_images_image *image);
void containerd_images_clear_list(struct containerd_images_image_list *list);
struct containerd_images_namespaced *containerd_images_namespaced_open(const char *file,
                                                                       const struct containerd_images_options *options);
int containerd_images_namespaced_close(struct containerd_images_namespaced *images);
int containerd_images_namespaced_create(struct containerd_images_namespaced *images, const char *name_space,
                                        const struct containerd_images_namespaced_image *image,
                                        struct containerd_images_namespaced_image *stored);
int containerd_images_namespaced_update(struct containerd_images_namespaced *images, const char *name_space,
                                        const struct containerd_images_namespaced_image *image,
                                        const char *const *fields, size_t fields_len,
                                        struct containerd_images_namespaced_image *stored);
int containerd_images_namespaced_delete(struct containerd_images_namespaced *images, const char *name_space,
                                        const char *name, const char *digest);
int containerd_images_namespaced_get(struct containerd_images_namespaced *images, const char *name_space,
                                     const char *name, struct containerd_images_namespaced_image *image);
int containerd_images_namespaced_list(struct containerd_images_namespaced *images, const char *name_space,
                                      const char *const *filters, size_t filters_len,
                                      struct containerd_images_namespaced_image_list *list);
int containerd_images_namespaced_namespaces(struct containerd_images_namespaced *images, char ***names,
                                            size_t *names_len);
int containerd_images_namespaced_create_namespace(struct containerd_images_namespaced *images,
                                                  const char *name_space, const json_map_string_string *labels);
int containerd_images_namespaced_delete_namespace(struct containerd_images_namespaced *images,
                                                  const char *name_space);
int containerd_images_namespaced_import(struct containerd_images_namespaced *images, const char *from,
                                        const char *name_space, int64_t timeout_ms,
                                        struct containerd_images_import_report *report);
void containerd_images_namespaced_clear_image(struct containerd_images_namespaced_image *image);
void containerd_images_namespaced_clear_list(struct containerd_images_namespaced_image_list *list);

/* remote_support.h, ro_symlink_maintain.h, image_store.h and layer_store.h of iSulad built with this switch. */
#if defined(ENABLE_REMOTE_LAYER_STORE)
int remote_append_image_by_directory_with_lock(const char *image_dir);
int remote_remove_image_from_memory_with_lock(const char *id);
char *remote_image_get_top_layer_from_json(const char *img_id);
int remote_load_one_layer(const char *id);
int remote_layer_remove_memory_stores_with_lock(const char *id);
int remote_image_init(const char *root_dir);
int remote_layer_init(const char *root_dir);
int remote_overlay_init(const char *driver_home);
void remote_maintain_cleanup(void);
int remote_layer_build_ro_dir(const char *id);
int remote_overlay_build_ro_dir(const char *id);
int remote_layer_remove_ro_dir(const char *id);
int remote_overlay_remove_ro_dir(const char *id);
bool remote_layer_layer_valid(const char *layer_id);
bool remote_overlay_layer_valid(const char *layer_id);
int remote_start_refresh_thread(pthread_rwlock_t *remote_lock);
#endif

/* The typedefs that the design documents name. */
_Static_assert(_Generic((image_storage_images *)0, storage_image *: 1, default: 0), "image_storage_images");
_Static_assert(_Generic((timestamp *)0, types_timestamp_t *: 1, default: 0), "timestamp");

/* unit.c */
size_t other_unit_size(void);

int main(void)
{
    CHECK(other_unit_size() == sizeof(image_store_t));
    CHECK(strcmp(isula_storage_version(), EXPECTED_VERSION) == 0);
    return DONE();
}
