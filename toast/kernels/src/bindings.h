// Each group of ops declares itself to Python in its own file, with MLX's signatures.
#pragma once
#include <nanobind/nanobind.h>

namespace toast {

void bind_floats(nanobind::module_& m);
void bind_quantized(nanobind::module_& m);
void bind_dense(nanobind::module_& m);
void bind_weights(nanobind::module_& m);
void bind_rope(nanobind::module_& m);
void bind_attention(nanobind::module_& m);
void bind_cache(nanobind::module_& m);
void bind_layer(nanobind::module_& m);
void bind_recurrence(nanobind::module_& m);
void bind_rwkv(nanobind::module_& m);
void bind_mixer(nanobind::module_& m);
void bind_delta_net(nanobind::module_& m);
void bind_short_conv(nanobind::module_& m);
void bind_mamba(nanobind::module_& m);
void bind_encoder(nanobind::module_& m);
void bind_scan(nanobind::module_& m);
void bind_near(nanobind::module_& m);
void bind_checksum(nanobind::module_& m);

}  // namespace toast
