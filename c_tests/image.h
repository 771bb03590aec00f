/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A small image: config and manifest, and their digests as sha256sum prints them. */

#ifndef ISULA_STORAGE_C_TESTS_IMAGE_H
#define ISULA_STORAGE_C_TESTS_IMAGE_H

#define IMAGE_CONFIG \
    "{\"architecture\":\"amd64\",\"author\":\"somebody\",\"config\":{\"Cmd\":[\"-c\",\"true\"],\"Entrypoi" \
    "nt\":[\"/bin/sh\"],\"Env\":[\"A=1\",\"B=2\"],\"ExposedPorts\":{\"80/tcp\":{},\"443/tcp\":{}},\"Healt" \
    "hcheck\":{\"Test\":[\"CMD\",\"true\"],\"Interval\":5000000000,\"Retries\":3},\"Labels\":{\"k\":\"v\"" \
    ",\"l\":\"\"},\"StopSignal\":\"SIGTERM\",\"User\":\"1000:100\",\"Volumes\":{\"/data\":{}},\"WorkingDi" \
    "r\":\"/w\"},\"created\":\"2019-10-11T17:26:17.8Z\",\"history\":[{\"created\":\"2019-10-11T17:26:17.8" \
    "Z\",\"created_by\":\"make\"},{\"comment\":\"c\",\"empty_layer\":true}],\"os\":\"linux\",\"rootfs\":{" \
    "\"diff_ids\":[\"sha256:03f4dc3b3211444ea7cc0fb233b38f983511381f37b6baa5f8fd53c556bbb84d\"],\"type\":" \
    "\"layers\"}}"

#define IMAGE_MANIFEST \
    "{\"config\":{\"digest\":\"sha256:03e59a8de00ec4ec020d21c27cd8e19ab94d19c6f4656cd3b04436cd41eaa688\"," \
    "\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"size\":608},\"layers\":[{\"digest\":\"s" \
    "ha256:03f4dc3b3211444ea7cc0fb233b38f983511381f37b6baa5f8fd53c556bbb84d\",\"mediaType\":\"application" \
    "/vnd.oci.image.layer.v1.tar\",\"size\":3584}],\"schemaVersion\":2}"

#define IMAGE_ID "03e59a8de00ec4ec020d21c27cd8e19ab94d19c6f4656cd3b04436cd41eaa688"
#define IMAGE_CONFIG_KEY "sha256:" IMAGE_ID
#define IMAGE_MANIFEST_DIGEST "sha256:9521d316e7cf94a26a13600fc2c422326b5da8c21b763b54a272b44b60e0f3c3"

#endif
