// A key/value cache with MLX-LM's layout (B, heads, capacity, D) as MLX ops: rows stored in it, and attention over it.
// Made of the ops' own parts, so the bits are those of rope, append and attention one after the other.
#include "cache_op.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <cstring>

#include "bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// buffer (B, H, capacity, D) with rows (B, H, n, D) stored from position `start` on, and its first start + n.
std::pair<mx::array, mx::array> append(const mx::array& buffer, const mx::array& rows, int start) {
  auto stop = buffer.shape();
  stop.at(2) = start + rows.shape(2);
  auto updated = mx::slice_update(buffer, rows, {0, 0, start, 0}, stop);
  return {updated, mx::slice(updated, {0, 0, 0, 0}, stop)};
}

// store_rows() of rows in buffer (R, n, capacity, D): in place when nobody else holds it.
mx::array store(const mx::array& rows, const SharedBatch& batch, const mx::array& buffer,
                const std::optional<Rope>& rope, const mx::Stream& s) {
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    take(in[1], out, s);
    dispatch(s, [batch, rope, x = x.data<char>(), type = type_of(x), to = kv_rows(out, *batch)] {
      store_rows(x, type, *batch, rope ? &*rope : nullptr, to);
    });
  };
  return make("CacheWrite", buffer.shape(), buffer.dtype(), s, {rows, buffer}, eval);
}

// The frequencies of a rope as an array has them; a model's own, so that this waits for nothing but once.
Frequencies frequencies_of(const mx::array& freqs) {
  auto s = mx::default_stream(mx::Device::cpu);
  auto f = mx::astype(freqs, mx::float32, s);
  f.eval();
  if (!f.flags().row_contiguous) (f = mx::contiguous(f, false, s)).eval();
  return inverted(f.data<float>(), f.size());
}

constexpr Refuse refuse{""};

Rope make_rope(int dims, bool traditional, std::optional<float> base, float scale, const OptionalArray& freqs) {
  refuse(dims < 2 || dims % 2, "[Rope] dims.");
  refuse(base.has_value() == freqs.has_value(), "[Rope] needs a base, or frequencies.");
  refuse(freqs && freqs->size() != (size_t)dims / 2, "[Rope] dims / 2 frequencies.");
  return {dims, traditional, scale, base ? inverse_frequencies(*base, dims / 2) : frequencies_of(*freqs)};
}

// One attention layer's step, between its projections.
struct AttentionStep {
  mx::array q, k, v;       // (B, L, heads * D), (B, L, kv_heads * D)
  mx::array keys, values;  // (B, kv_heads, capacity, D)
  Rope rope;
  int offset;
  float scale;
  bool causal;

  int D() const { return keys.shape(3); }
  int heads() const { return q.shape(2) / D(); }

  void check() const {
    for (auto x : {&q, &k, &v, &keys, &values})
      refuse(x->dtype() != q.dtype() || !is_float(x->dtype()) || x->shape(0) != q.shape(0) || !x->size(),
             "[attention_step] needs arrays of one float dtype and one batch.");
    int L = q.shape(1), kv_heads = keys.shape(1);
    bool fits = keys.shape() == values.shape() && k.shape() == v.shape() && k.shape(1) == L &&
                k.shape(2) == kv_heads * D() && q.shape(2) % D() == 0 && heads() % kv_heads == 0;
    refuse(!fits || offset < 0 || L > keys.shape(2) - offset || rope.dims > D(), "[attention_step] shapes do not fit.");
  }
};

// Rope, the cache's update and attention over it -> y (B, L, heads * D), keys, values.
std::tuple<mx::array, mx::array, mx::array> run(const AttentionStep& step) {
  auto s = mx::to_stream({});
  refuse(!ours(s), "[attention_step] on the CPU only.");
  step.check();
  auto batch = equal_texts(step.q.shape(0), step.q.shape(1), step.offset, step.causal);
  auto new_keys = store(step.k, batch, step.keys, step.rope, s), new_values = store(step.v, batch, step.values, {}, s);
  auto eval = [batch, rope = step.rope, heads = step.heads(), scale = step.scale](const Arrays& in, mx::array& out,
                                                                                  const mx::Stream& s) {
    auto q = contiguous(in[0], s);
    allocate(out);
    dispatch(s,
             [=, q = q.data<char>(), type = type_of(out),
              caches = KvCaches{kv_rows(in[1], *batch), kv_rows(in[2], *batch)}, rotated = temporary(out.nbytes(), s),
              y = out.data<char>()] { attend({q, type, heads, scale, rope, rotated, y}, *batch, caches); });
  };
  auto y = make("CacheAttention", step.q.shape(), step.q.dtype(), s, {step.q, new_keys, new_values}, eval);
  return {y, new_keys, new_values};
}

}  // namespace

SharedBatch equal_texts(int B, int L, int offset, bool causal) {
  auto batch = std::make_shared<RaggedBatch>(RaggedBatch{{}, B * L, causal});
  for (int b = 0; b < B; b++) batch->segments.push_back({b * L, L, offset});
  return batch;
}

void take(const mx::array& in, mx::array& out, const mx::Stream& s) {
  if (in.is_donatable() && in.flags().row_contiguous) return out.copy_shared_buffer(in);
  auto x = contiguous(in, s);
  allocate(out);
  dispatch(s, [from = x.data<char>(), to = out.data<char>(), n = out.nbytes()] { std::memcpy(to, from, n); });
}

void bind_cache(nb::module_& m) {
  nb::class_<Rope>(m, "Rope", "Rotary positions: of a base, or of frequencies.")
      .def(
          "__init__",
          [](Rope* self, int dims, bool traditional, std::optional<float> base, float scale,
             const OptionalArray& freqs) { new (self) Rope(make_rope(dims, traditional, base, scale, freqs)); },
          nb::kw_only(), "dims"_a, "traditional"_a, "base"_a.none(), "scale"_a, "freqs"_a.none());
  m.def("append", &append, "buffer"_a, "rows"_a, "start"_a);
  m.def(
      "attention_step",
      [](const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& keys, const mx::array& values,
         const Rope& rope, int offset, float scale,
         bool causal) { return run({q, k, v, keys, values, rope, offset, scale, causal}); },
      nb::kw_only(), "q"_a, "k"_a, "v"_a, "keys"_a, "values"_a, "rope"_a, "offset"_a, "scale"_a, "causal"_a,
      "q (B, L, heads D), k, v (B, L, kv_heads D), and a cache (B, kv_heads, capacity, D) that holds `offset` "
      "positions\n"
      "-> y (B, L, heads D), keys, values. All of one float dtype; offset + L <= capacity.");
}

}  // namespace toast
