#!/usr/bin/env python3
# SPDX-License-Identifier: MulanPSL-2.0
"""Makes the image that the engine is measured with, or takes one.

    image.py DIR [PERCENT]         of Debian's packages, through apt as this machine has it set up
    image.py DIR --take LAYOUT     of an OCI layout with one image of gzip layers

Five gzip layers at 100 percent (about 48,000 entries, 1.1 GB): a Debian base system, 39,000 small source files,
compilers, whiteouts, odd metadata. Nothing is installed and no program of the packages is run; neither needs root.

DIR gets plain/N.tar, packed/N.tar.gz, layout (OCI, of the packed layers), docker.tar (for `docker load`), oci.tar, and
`summary`: entries and bytes of the plain layers, and `list` for `benches/layers.c`. It appears when it is whole.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

BASE = ["?essential", "?priority(required)", "apt"]
COMPILERS = ["gcc", "g++", "gfortran", "clang", "rustc"]
# Its archive of sources is a file in the package.
SOURCES = "linux-source-6.1"
SMALL_FILES = 39_000
# Every second one of at most so many bytes, so that they come from the whole tree.
SMALL = 128 << 10
COMPILERS_BYTES = 420_000_000
WHITEOUTS = 1_500
ODD = 500
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
TIME = 1_600_000_000


def packages(work, names):
    """Downloads packages with all they depend on, as if nothing were installed; apt checks them."""
    archives = os.path.join(work, "archives")
    os.makedirs(os.path.join(archives, "partial"), exist_ok=True)
    status = os.path.join(work, "status")
    open(status, "w").close()
    options = ["-q", "-y", "--no-install-recommends", "-o", "Debug::NoLocking=1", "-o", f"Dir::State::status={status}",
               "-o", f"Dir::Cache::archives={archives}", "-o", "APT::Sandbox::User=root"]
    command = ["apt-get", *options, "--download-only", "install", *names]

    def fetch():
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    done = fetch()
    if done.returncode:
        # A machine may never have asked which packages there are, or long ago.
        subprocess.run(["apt-get", "-q", "update"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        done = fetch()
    if done.returncode:
        sys.exit(done.stdout.decode(errors="replace") + f"{' '.join(command)} failed")
    return {os.path.join(archives, name) for name in os.listdir(archives) if name.endswith(".deb")}


def members(deb):
    """Entries of a package's tree, each with its content."""
    # It complains when nobody reads it to the end.
    command = ["dpkg-deb", "--fsys-tarfile", deb]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for member in tar:
                yield member, tar.extractfile(member) if member.isreg() else None
    if process.returncode:
        sys.exit(f"dpkg-deb --fsys-tarfile {deb} failed")


class Layer:
    """A plain layer being written: each path once, directories before what is in them."""

    def __init__(self, path):
        self.tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT, copybufsize=1 << 20)
        self.names = set()
        self.bytes = 0
        self.files = []

    def add(self, member, content=None, name=None):
        member.name = (member.name if name is None else name).strip("/")
        if not member.name or member.name in self.names:
            return
        self.parents(member.name)
        self.names.add(member.name)
        self.tar.addfile(member, content)
        self.bytes += member.size
        if member.isreg():
            self.files.append(member.name)

    def parents(self, name):
        parent = os.path.dirname(name)
        if parent and parent not in self.names:
            member = tarfile.TarInfo(parent)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, TIME
            self.add(member)

    def close(self):
        self.tar.close()


def merged(name):
    """Where a base system of today has it: /bin is /usr/bin."""
    name = name.removeprefix("./").strip("/")
    return f"usr/{name}" if name.split("/")[0] in MERGED else name


def of_packages(path, debs, most):
    layer = Layer(path)
    for name in MERGED:
        link = tarfile.TarInfo(name)
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, f"usr/{name}", TIME
        if path.endswith("1.tar"):
            layer.add(link)
    for deb in sorted(debs, key=os.path.basename):
        for member, content in members(deb):
            if layer.bytes + member.size > most:
                continue
            if member.islnk():
                member.linkname = merged(member.linkname)
                if member.linkname not in layer.names:
                    continue
            layer.add(member, content, merged(member.name))
    layer.close()


def of_sources(path, deb, most):
    layer = Layer(path)
    for member, content in members(deb):
        if not member.name.endswith(".tar.xz"):
            continue
        with subprocess.Popen(["xz", "-dc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as xz:
            # Fed from here, for the packages's archive can be read only once.
            pid = os.fork()
            if pid == 0:
                try:
                    shutil.copyfileobj(content, xz.stdin, 1 << 20)
                    xz.stdin.close()
                except BrokenPipeError:
                    pass
                os._exit(0)
            xz.stdin.close()
            xz.stdin = None
            with tarfile.open(fileobj=xz.stdout, mode="r|") as tar:
                small = 0
                for source in tar:
                    if len(layer.files) >= most:
                        break
                    small += source.isreg() and source.size <= SMALL
                    if source.isreg() and source.size <= SMALL and small % 2 == 0:
                        layer.add(source, tar.extractfile(source), f"usr/src/{source.name}")
            xz.terminate()
            os.waitpid(pid, 0)
        break
    layer.close()
    return layer.files


def whiteouts(path, files, most):
    layer = Layer(path)
    step = max(1, len(files) // max(1, most))
    for name in files[::step][:most]:
        parent, base = os.path.split(name)
        member = tarfile.TarInfo(f"{parent}/.wh.{base}")
        member.mtime = TIME
        layer.add(member)
    for parent in sorted({os.path.dirname(name) for name in files})[::200]:
        member = tarfile.TarInfo(f"{parent}/.wh..wh..opq")
        member.mtime = TIME
        layer.add(member)
    layer.close()


def odd(path, count):
    """Links, devices, modes, owners, attributes, sparse files, long and strange names, times to the nanosecond."""
    tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)
    root = tarfile.TarInfo("./")
    root.type, root.mode, root.mtime = tarfile.DIRTYPE, 0o755, TIME
    tar.addfile(root)
    for number in range(count):
        if number % 50 == 0:
            at = tarfile.TarInfo(f"odd/d{number // 50}")
            at.type, at.mode, at.mtime = tarfile.DIRTYPE, [0o755, 0o1777, 0o2750][number // 50 % 3], TIME + 0.5
            tar.addfile(at)
        member = tarfile.TarInfo(f"odd/d{number // 50}/{'n' * (number % 200)} \u00e4-{number}")
        member.mtime = TIME + number + 0.25
        member.uid, member.gid = number % 1000, 3_000_000 if number % 40 == 0 else number % 1000
        member.mode = [0o4755, 0o600, 0o2711, 0o444][number // 8 % 4]
        content = b""
        kind = number % 12
        if kind == 0:
            member.type, member.linkname = tarfile.SYMTYPE, "../" + "t" * (number % 150)
        elif kind == 1:
            data = b"x" * 512
            content = f"2\n{4096}\n{512}\n{1 << 20}\n0\n".encode().ljust(512, b"\0") + data
            member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": member.name,
                                  "GNU.sparse.realsize": str(1 << 20)}
            member.name = f"odd/GNUSparseFile.0/{number}"
        elif kind == 2 and number > 12:
            member.type, member.linkname = tarfile.LNKTYPE, last
        elif kind == 3:
            member.type, member.mode = tarfile.DIRTYPE, 0o700
        elif kind == 4:
            member.type = tarfile.FIFOTYPE
        elif kind == 5:
            member.type, member.devmajor, member.devminor = tarfile.CHRTYPE, 1, 3
        else:
            content = f"content {number}\n".encode() * (number % 90)
            last = member.name
            if kind == 7:
                member.pax_headers = {"SCHILY.xattr.user.note": "value", "SCHILY.xattr.trusted.note": "v" * 100}
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    tar.close()


def digest(path):
    summing = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            summing.update(piece)
    return summing.hexdigest()


def blob(layout, content):
    name = hashlib.sha256(content).hexdigest()
    with open(f"{layout}/blobs/sha256/{name}", "wb") as file:
        file.write(content)
    return {"digest": f"sha256:{name}", "size": len(content)}


def count(path):
    entries = 0
    with tarfile.open(path) as tar:
        while tar.next() is not None:
            entries += 1
            tar.members.clear()
    return entries


def finish(work, target):
    """The layout, the archives and the summary of plain and packed layers."""
    layout = f"{work}/layout"
    os.makedirs(f"{layout}/blobs/sha256")
    numbers = range(1, len(os.listdir(f"{work}/plain")) + 1)
    layers = []
    diff_ids = [f"sha256:{digest(f'{work}/plain/{n}.tar')}" for n in numbers]
    for number in numbers:
        path = f"{work}/packed/{number}.tar.gz"
        name = digest(path)
        if os.path.exists(f"{layout}/blobs/sha256/{name}"):
            sys.exit("two layers are the same")
        os.link(path, f"{layout}/blobs/sha256/{name}")
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{name}",
                       "size": os.path.getsize(path)})
    config = {"created": "2020-01-02T03:04:05Z", "architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": diff_ids},
              "history": [{"created": "2020-01-02T03:04:05Z", "created_by": f"layer {n}"} for n in numbers]}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json"} | blob(layout, json.dumps(config).encode())
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers}
    listed = {"mediaType": manifest_type} | blob(layout, json.dumps(manifest).encode())
    listed["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    for name, content in [("oci-layout", {"imageLayoutVersion": "1.0.0"}),
                          ("index.json", {"schemaVersion": 2, "manifests": [listed]})]:
        with open(f"{layout}/{name}", "w") as file:
            json.dump(content, file)
    listed["annotations"] = {"org.opencontainers.image.ref.name": "bench",
                             "io.containerd.image.name": "docker.io/library/bench:1"}
    with tarfile.open(f"{work}/oci.tar", "w") as tar:
        for name in ["oci-layout", "blobs"]:
            tar.add(f"{layout}/{name}", name)
        index = json.dumps({"schemaVersion": 2, "manifests": [listed]}).encode()
        member = tarfile.TarInfo("index.json")
        member.size = len(index)
        tar.addfile(member, io.BytesIO(index))
    with tarfile.open(f"{work}/docker.tar", "w") as tar:
        tar.add(f"{layout}/blobs/sha256/{config['digest'][7:]}", "config.json")
        for number in numbers:
            tar.add(f"{work}/packed/{number}.tar.gz", f"{number}/layer.tar")
        manifest = json.dumps([{"Config": "config.json", "RepoTags": ["bench:1"],
                                "Layers": [f"{n}/layer.tar" for n in numbers]}]).encode()
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        tar.addfile(member, io.BytesIO(manifest))
    entries = sum(count(f"{work}/plain/{n}.tar") for n in numbers)
    size = sum(os.path.getsize(f"{work}/plain/{n}.tar") for n in numbers)
    with open(f"{work}/list", "w") as file:
        for number, layer, diff_id in zip(numbers, layers, diff_ids):
            file.write(f"{layer['digest']} {diff_id} {target}/packed/{number}.tar.gz\n")
    with open(f"{work}/summary", "w") as file:
        file.write(f"{entries} {size}\n")


def make(work, percent):
    base = packages(work, BASE)
    compilers = packages(work, BASE + COMPILERS) - base
    sources = next(deb for deb in packages(work, [SOURCES]) if os.path.basename(deb).startswith(SOURCES))
    plain = [f"{work}/plain/{number}.tar" for number in range(1, 6)]
    packing = []

    def pack(number):
        with open(f"{work}/packed/{number}.tar.gz", "wb") as out:
            packing.append(subprocess.Popen(["gzip", "-n", "-6", "-c", plain[number - 1]], stdout=out))

    files = of_sources(plain[1], sources, SMALL_FILES * percent // 100)
    pack(2)
    of_packages(plain[2], compilers, COMPILERS_BYTES * percent // 100)
    pack(3)
    of_packages(plain[0], base, 300_000_000 * percent // 100)
    pack(1)
    whiteouts(plain[3], files, WHITEOUTS * percent // 100)
    pack(4)
    odd(plain[4], max(50, ODD * percent // 100))
    pack(5)
    if any([process.wait() for process in packing]):
        sys.exit("gzip failed")
    shutil.rmtree(f"{work}/archives")
    os.remove(f"{work}/status")


def take(work, layout):
    def read(described):
        algorithm, name = described["digest"].split(":")
        return f"{layout}/blobs/{algorithm}/{name}"

    with open(f"{layout}/index.json") as file:
        with open(read(json.load(file)["manifests"][0])) as file:
            layers = json.load(file)["layers"]
    for number, layer in enumerate(layers, 1):
        if not layer["mediaType"].endswith("gzip"):
            sys.exit(f"{layer['mediaType']}: only images of gzip layers can be measured")
        shutil.copyfile(read(layer), f"{work}/packed/{number}.tar.gz")
        with gzip.open(read(layer)) as packed, open(f"{work}/plain/{number}.tar", "wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)


def main():
    target = sys.argv[1]
    work = f"{target}.new"
    shutil.rmtree(work, ignore_errors=True)
    for name in ["plain", "packed"]:
        os.makedirs(f"{work}/{name}")
    try:
        if len(sys.argv) > 3 and sys.argv[2] == "--take":
            take(work, sys.argv[3])
        else:
            make(work, int(sys.argv[2]) if len(sys.argv) > 2 else 100)
        finish(work, os.path.abspath(target))
        os.rename(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
