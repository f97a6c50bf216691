#!/bin/sh
# Write an aarch64 Python with the libraries of a device into a folder, to be run by QEMU without binfmt or root's
# chroot: FOLDER/root (Debian 12's files), FOLDER/site (wheels, unpacked) and FOLDER/python (the program).
# Needs Debian's packages qemu-user-static and debootstrap, and uv. Usage: prepare.sh FOLDER WHEEL
set -eu
here=$(dirname "$0")
folder=$1 wheel=$2
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ ! -e "$folder/root/ready" ]; then
    # --foreign only downloads and checks packages: nothing of another processor is run.
    debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,libgomp1 bookworm "$folder/root"
    for package in "$folder"/root/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$folder/root"; done
    echo "127.0.0.1 localhost" > "$folder/root/etc/hosts"
    touch "$folder/root/ready"
fi
# PyPI's aarch64 wheels from torch 2.11 on need CUDA; 2.10 is its last one for the CPU only.
uv pip install --quiet --target "$folder/site" --python-platform aarch64-manylinux_2_28 --python-version 3.11 \
    --only-binary :all: "$wheel[fleet]" 'torch<2.11'
cp "$here/sitecustomize.py" "$folder/site/"
cat > "$folder/python" <<EOF
#!/bin/sh
export SHEAF_ARM_PYTHON="$folder/python" PYTHONPATH="$folder/site" PYTHONPYCACHEPREFIX="$folder/bytecode"
exec qemu-aarch64-static -L "$folder/root" "$folder/root/usr/bin/python3.11" "\$@"
EOF
chmod +x "$folder/python"
