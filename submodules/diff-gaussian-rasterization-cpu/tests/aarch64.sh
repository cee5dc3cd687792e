#!/bin/bash
# The wheel for 64-bit Arm, cross-compiled, and tested by an Arm Python under QEMU:  tests/aarch64.sh FOLDER [pytest's
# arguments].  Without arguments, the tests of the results.
#
# Needs Debian or Ubuntu of any machine with apt-get (as a user; nothing is installed), dpkg, pip, build, nanobind,
# scikit-build-core, cmake, auditwheel, patchelf, g++-aarch64-linux-gnu and qemu-user.  FOLDER gets an Arm Python from
# the distribution's packages, NumPy and torch from PyPI, and the wheel in FOLDER/wheel; what is there is kept.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- tests/test_native.py tests/test_inria.py tests/test_readme.py
python=${PYTHON:-python3}

cd "$folder"
if [ ! -e root ]; then
  mkdir -p apt/lists/partial apt/cache/archives/partial debs new-root
  touch apt/status
  apt=(apt-get -q -o Dir::State="$folder/apt" -o Dir::State::status="$folder/apt/status" -o APT::Architecture=arm64
       -o Dir::Cache="$folder/apt/cache" -o APT::Architectures=arm64 -o APT::Sandbox::User=root)
  "${apt[@]}" update
  version=$(apt-cache "${apt[@]:2}" depends python3-minimal | sed -n 's/.*Depends: python\(3\.[0-9]*\)-minimal/\1/p')
  (cd debs && "${apt[@]}" download "python$version-minimal" "libpython$version-"{minimal,stdlib,dev} libc6 libexpat1 \
    libexpat1-dev zlib1g libssl3 libffi8 libbz2-1.0 liblzma5 libstdc++6 libgcc-s1 libgomp1 libuuid1)
  for package in debs/*.deb; do dpkg -x "$package" new-root; done
  mv new-root root
fi
version=$(cd root/usr/include && ls -d python3.*)
version=${version#python}
# Without pip's own choice of requirements, which would be those of this machine.
[ -e site/torch ] || "$python" -m pip install -q --target site --no-deps --only-binary=:all: \
  --python-version "$version" --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 \
  numpy "torch==${TORCH:-2.6.0}" typing_extensions filelock fsspec sympy mpmath networkx jinja2 MarkupSafe \
  pytest pluggy iniconfig packaging pygments

cat > toolchain.cmake <<'END'
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
END
rm -rf wheel site/diff_gaussian_rasterization_cpu*
_PYTHON_HOST_PLATFORM=linux-aarch64 SETUPTOOLS_EXT_SUFFIX=".cpython-${version/./}-aarch64-linux-gnu.so" \
  "$python" -m build --wheel --no-isolation --outdir built "$here" -C build-dir="$folder/build" \
  -C cmake.define.CMAKE_TOOLCHAIN_FILE="$folder/toolchain.cmake" \
  -C cmake.define.Python_INCLUDE_DIR="$folder/root/usr/include/python$version" \
  -C cmake.define.CMAKE_CXX_FLAGS="-I$folder/root/usr/include"
"$python" -m auditwheel repair --ldpaths "$folder/root/usr/lib/aarch64-linux-gnu" --wheel-dir wheel built/*.whl
rm -r built
(cd site && "$python" -m zipfile -e ../wheel/*.whl .)

cd "$here"
qemu-aarch64 -L "$folder/root" -E PYTHONPATH="$folder/site" -E LD_LIBRARY_PATH="$folder/site/torch.libs" \
  -E OMP_NUM_THREADS=1 "$folder/root/usr/bin/python$version" -m pytest -q -p no:cacheprovider "$@"
