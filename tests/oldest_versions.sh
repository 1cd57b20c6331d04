#!/usr/bin/env bash
# Runs the fast tests with the oldest Keras and TensorFlow that setup.cfg allows.
#
#     tests/oldest_versions.sh [PYTHON [TEST...]]
#
# PYTHON is the interpreter to use ("python3"), TEST a file or anything else that
# pytest takes (all tests). Everything happens in a temporary folder, with a
# copy of the sources: a kernel compiled here stays as it is.
set -euo pipefail
python=${1:-python3}
shift || true
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/sources"
git ls-files --cached --others --exclude-standard -z |
  while IFS= read -r -d "" file; do
    # Git also lists what was deleted and not committed.
    if [ -e "$file" ]; then printf "%s\0" "$file"; fi
  done |
  tar --create --null --files-from=- |
  tar --extract --directory="$folder/sources"

"$python" -m venv "$folder/environment"
# shellcheck disable=SC1091
source "$folder/environment/bin/activate"
cd "$folder/sources"

# "tensorflow>=2.20" becomes "tensorflow==2.20".
mapfile -t oldest < <(sed -n -E 's/^ +(keras|tensorflow)>=/\1==/p' setup.cfg)
pip install --quiet "${oldest[@]}" --editable ".[test]"
python --version
pip list | grep -E -i "^(jax|jaxlib|keras|numpy|tensorflow) "

python -m pytest "$@"
