#!/bin/sh
# Check that every dependency of a device has an aarch64 wheel, for each Python, with torch for the CPU and with the
# newest torch. manylinux_2_28 runs on the systems in docs/deploy.md. Only metadata is downloaded. Needs uv.
set -eu
cd "$(dirname "$0")/../.."
for python in 3.10 3.11 3.12 3.13; do
    for torch in 'torch<2.11' 'torch>=2.11'; do
        found=$(echo "$torch" | uv pip compile --quiet --python-platform aarch64-manylinux_2_28 \
            --python-version "$python" --only-binary :all: --no-header --no-annotate --extra fleet pyproject.toml -)
        echo "Python $python, $torch: $(echo "$found" | wc -l) wheels, $(echo "$found" | grep '^torch==')"
    done
done
