"""Make packed.json: whole numbers as compressed-tensors and transformers (BitNet) pack them.

Run: python make_packed.py (needs torch, transformers and compressed-tensors; the versions are in the file).
"""

import json
import os

import compressed_tensors
import torch
import transformers
from compressed_tensors.compressors import pack_to_int32
from transformers.integrations.bitnet import pack_weights

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    generator = torch.Generator().manual_seed(1)
    made = {"versions": {"compressed_tensors": compressed_tensors.__version__, "transformers": transformers.__version__}}
    for bits in (4, 8):
        half = 1 << (bits - 1)
        values, zeros = (
            torch.randint(-half, half, (16, width), generator=generator, dtype=torch.int8) for width in (64, 2)
        )
        made[f"int{bits}"] = {
            "values": values.tolist(), "zeros": zeros.tolist(), "packed": pack_to_int32(values, bits).tolist(),
            "packed_zeros": pack_to_int32(zeros, bits, packed_dim=0).tolist(),
        }  # fmt: skip
    values = torch.randint(-1, 2, (8, 32), generator=generator)
    made["bitnet"] = {"values": values.tolist(), "packed": pack_weights(values.float()).tolist()}
    with open(os.path.join(HERE, "packed.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
