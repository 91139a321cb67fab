"""Check whether a folder is a BIDS data set, with the official validator if it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from rimap.errors import InputError, count_of

#: Commands of the official validator, the current one first.
_VALIDATORS = ("bids-validator-deno", "bids-validator")
_SKIP = "Correct it, or use --skip-bids-validation."


def check_dataset(folder: Path) -> None:
    """Refuse a folder that is not a valid BIDS data set.

    Raises
    ------
    InputError
        If dataset_description.json is missing or incomplete, or if the validator finds errors.
    """
    from rimap.io.bids import read_json

    path = folder / "dataset_description.json"
    if not path.is_file():
        raise InputError(f"{folder}: expected a BIDS data set with dataset_description.json, got none. {_SKIP}")
    missing = [k for k in ("Name", "BIDSVersion") if not read_json(path).get(k)]
    if missing:
        raise InputError(
            f"{path}: expected the fields Name and BIDSVersion, got no {' and no '.join(missing)}. {_SKIP}"
        )
    for name in _VALIDATORS:
        if (program := shutil.which(name)) is not None:
            _validate(program, folder)
            return


def _validate(program: str, folder: Path) -> None:
    command = [program, str(folder), "--ignoreWarnings", "--ignoreNiftiHeaders", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError):
        return  # another program of that name, or it could not start: ignore its output
    errors = [issue for issue in issues if issue.get("severity") == "error"]
    if errors:
        shown = "; ".join(
            f"{error.get('code')} {str(error.get('location', '')).lstrip('/')}".strip() for error in errors[:3]
        )
        raise InputError(f"{folder} is not valid BIDS: {count_of(len(errors), 'error')} ({shown}). {_SKIP}")
