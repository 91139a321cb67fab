"""Put a trained network among those that ship, with its description and measured figures.

python -m benchmarks.ship runs/t1/t1.onnx --description "T1, any protocol" --figures runs/bench_t1.json

This version writes the file again. The weights of a RIM stay the same; those of a ResNet, which are 97 % of the wheel,
become integers of 16 bits (`rimap.estimators.networks.sixteen_bits`). No path of the machine that trained it is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import onnx

from rimap.estimators.network_files import CHECKSUMS, METADATA, WEIGHTS, metadata_of
from rimap.estimators.networks.export import save_onnx
from rimap.estimators.networks.restore import written_anew
from rimap.estimators.networks.sixteen_bits import in_sixteen_bits


def main() -> None:
    """Write the network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--description", default=None)
    parser.add_argument("--figures", type=Path, default=None, help="JSON of bench_t1 --json")
    args = parser.parse_args()
    about = metadata_of(args.network)
    about["description"] = args.description or about["description"]
    if args.figures:
        about["figures"] = json.loads(args.figures.read_text())
    for of in (about["recipe"]["simulation"], about["recipe"]["training"]):
        for key in ("anatomies", "validation"):
            if key in of:
                of[key] = [Path(a).name for a in of[key]]
    if init := about["recipe"].get("init"):
        about["recipe"]["init"] = "/".join(Path(init).parts[-2:])
    model = written_anew(str(args.network)) if about["kind"] == "rim" else in_sixteen_bits(onnx.load(str(args.network)))
    onnx.helper.set_model_props(model, {METADATA: json.dumps(about)})
    out = WEIGHTS / f"{about['name']}.onnx"
    save_onnx(model, out)
    sums = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in sorted(WEIGHTS.glob("*.onnx"))]
    (WEIGHTS / CHECKSUMS).write_text("".join(sums), encoding="utf-8")
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
