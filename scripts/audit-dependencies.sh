#!/bin/sh
# Ask for known advisories against every package that is shipped (services.lock). It needs a network with an advisory
# database (the JSON interface of PyPI): a package that cannot be looked up is no pass.
# Exit code: 0 nothing is known, 1 something is or a package could not be asked about.
# With --where-possible (CI) a missing database does not end the run, but is said loudly and is no pass either.
set -eu
cd "$(dirname "$0")/.."
python="${VENV:-.venv}/bin/python"

if said=$(timeout 300 "$python" -m pip_audit -r services.lock --no-deps --disable-pip --strict --progress-spinner off 2>&1); then
    echo "audit-dependencies: no advisory is known for what services.lock names"
    exit 0
fi
case $said in
    *"Found "*"known vulnerab"*)
        echo "$said" >&2
        exit 1
        ;;
esac
cat >&2 <<END
================================================================================================
DEPENDENCIES WERE NOT AUDITED: advisories could not be fetched. This is no pass.
Run \`make audit-dependencies\` on a machine that reaches PyPI before you release.
What was said last: $(echo "$said" | tail -n 1 | cut -c1-200)
================================================================================================
END
[ "${1:-}" = --where-possible ]
