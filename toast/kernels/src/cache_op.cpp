// A key/value cache with MLX-LM's layout (B, heads, capacity, D) as MLX ops: rows written to it, and attention over it.
// Made of the ops' own parts, so the bits are those of rope, append and attention one after the other.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <cstring>

#include "bindings.h"
#include "cache_op.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// buffer (B, H, capacity, D) with rows (B, H, n, D) written from position `start` on, and its first start + n.
std::pair<mx::array, mx::array> append(const mx::array& buffer, const mx::array& rows, int start) {
  auto stop = buffer.shape();
  stop.at(2) = start + rows.shape(2);
  auto updated = mx::slice_update(buffer, rows, {0, 0, start, 0}, stop);
  return {updated, mx::slice(updated, {0, 0, 0, 0}, stop)};
}

// B texts that are equally far, with L rows each.
SharedSegments equal_segments(int B, int L, int offset) {
  auto all = std::make_shared<Segments>();
  for (int b = 0; b < B; b++) all->push_back({b, b * L, L, offset});
  return all;
}

// place() of rows in buffer (R, n, capacity, D): in place when nobody else holds it.
mx::array write(const mx::array& rows, const SharedSegments& segments, const mx::array& buffer,
                const std::optional<Rope>& rope, const mx::Stream& s) {
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    take(in[1], out, s);
    dispatch(s, [segments, rope, x = x.data<char>(), type = type_of(x), to = kept(out)] {
      place(x, type, *segments, rope ? &*rope : nullptr, to);
    });
  };
  return make("CacheWrite", buffer.shape(), buffer.dtype(), s, {rows, buffer}, eval);
}

}  // namespace

void take(const mx::array& in, mx::array& out, const mx::Stream& s) {
  if (in.is_donatable() && in.flags().row_contiguous) return out.copy_shared_buffer(in);
  auto x = contiguous(in, s);
  allocate(out);
  dispatch(s, [from = x.data<char>(), to = out.data<char>(), n = out.nbytes()] { std::memcpy(to, from, n); });
}

Frequencies frequencies(std::optional<float> base, const Optional& freqs, int dims, const mx::Stream& s) {
  if (base) return inverse_frequencies(*base, dims / 2);
  auto f = mx::astype(*freqs, mx::float32, s);
  f.eval();  // a model's own, so that this waits for nothing but once
  if (!f.flags().row_contiguous) (f = mx::contiguous(f, false, s)).eval();
  return inverted(f.data<float>(), dims / 2);
}

namespace {

// One attention layer's step, between its projections: rope, the cache's update and attention over it.
// -> y (B, L, H D), keys, values. All of one float dtype; offset + L <= capacity.
std::tuple<mx::array, mx::array, mx::array> attention_step(const mx::array& q, const mx::array& k, const mx::array& v,
                                                           const mx::array& keys, const mx::array& values, int offset,
                                                           int heads, int kv_heads, float scale, bool causal, int dims,
                                                           bool traditional, std::optional<float> base,
                                                           float rope_scale, const Optional& freqs) {
  auto s = mx::to_stream({});
  int L = q.shape(1), D = keys.shape(3);
  for (auto x : {&q, &k, &v, &keys, &values})
    if (x->dtype() != q.dtype() || !is_float(x->dtype()) || x->shape(0) != q.shape(0) || !x->size())
      throw std::invalid_argument("[attention_step] needs arrays of one float dtype and one batch.");
  if (!ours(s) || q.shape(2) != heads * D || k.shape(2) != kv_heads * D || v.shape(2) != kv_heads * values.shape(3) ||
      values.shape(3) != D || k.shape(1) != L || v.shape(1) != L || offset < 0 || L > keys.shape(2) - offset ||
      L > values.shape(2) - offset || dims < 2 || dims > D || dims % 2 || values.shape(1) != kv_heads ||
      base.has_value() == freqs.has_value() || (freqs && freqs->size() != (size_t)dims / 2) ||
      kv_heads != keys.shape(1) || heads % kv_heads)
    throw std::invalid_argument("[attention_step] shapes do not fit.");
  Rope rope{dims, traditional, rope_scale, frequencies(base, freqs, dims, s)};
  auto segments = equal_segments(q.shape(0), L, offset);
  auto new_keys = write(k, segments, keys, rope, s), new_values = write(v, segments, values, {}, s);
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto q = contiguous(in[0], s);
    allocate(out);
    dispatch(s, [=, q = q.data<char>(), type = type_of(out), keys = kept(in[1]), values = kept(in[2]),
                 turned = temporary(out.nbytes(), s), y = out.data<char>()] {
      attend(q, type, heads, *segments, rope, scale, causal, keys, values, turned, y);
    });
  };
  return {make("CacheAttention", q.shape(), q.dtype(), s, {q, new_keys, new_values}, eval), new_keys, new_values};
}

}  // namespace

void bind_cache(nb::module_& m) {
  m.def("append", &append, "buffer"_a, "rows"_a, "start"_a);
  m.def("attention_step", &attention_step, "q"_a, "k"_a, "v"_a, "keys"_a, "values"_a, "offset"_a, "heads"_a,
        "kv_heads"_a, "scale"_a, "causal"_a, "dims"_a, "traditional"_a, "base"_a.none(), "rope_scale"_a,
        "freqs"_a.none());
}

}  // namespace toast
