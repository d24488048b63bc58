// A key/value cache with MLX-LM's layout (B, heads, capacity, D): rows written to it, and attention over it.
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

// The same memory seen with another shape, kept until the stream's work so far is done.
mx::array view(const mx::array& x, mx::Shape shape, mx::Strides strides, int64_t offset, const mx::Stream& s) {
  mx::array y(std::move(shape), x.dtype(), nullptr, {});
  y.copy_shared_buffer(x, std::move(strides), {false, false, false}, x.data_size(), offset);
  mx::cpu::get_command_encoder(s).add_temporary(y);
  return y;
}

// Rows [start, start + n) of a buffer.
mx::array positions(const mx::array& buffer, int start, int n, const mx::Stream& s) {
  return view(buffer, {buffer.shape(0), buffer.shape(1), n, buffer.shape(3)}, buffer.strides(),
              start * buffer.strides(2), s);
}

// `out` becomes `in`: the same memory when nobody else holds it, else a copy.
void take(const mx::array& in, mx::array& out, const mx::Stream& s) {
  if (in.is_donatable() && in.flags().row_contiguous) return out.copy_shared_buffer(in);
  auto x = contiguous(in, s);
  allocate(out);
  dispatch(s, [from = x.data<char>(), to = out.data<char>(), n = out.nbytes()] { std::memcpy(to, from, n); });
}

void copy_rows(const mx::array& x, const mx::array& y, const mx::Stream& s) {
  dispatch(s, [x, y, size = (int64_t)x.itemsize(), row = x.shape(3) * x.itemsize()] {
    for (int64_t b = 0; b < x.shape(0); b++)
      for (int64_t n = 0; n < x.shape(1); n++)
        for (int64_t t = 0; t < x.shape(2); t++)
          std::memcpy(const_cast<char*>(y.data<char>()) + (b * y.strides(0) + n * y.strides(1) + t * y.strides(2)) * size,
                      x.data<char>() + (b * x.strides(0) + n * x.strides(1) + t * x.strides(2)) * size, row);
  });
}

}  // namespace

mx::array split_heads(const mx::array& x, int64_t first, int B, int L, int n, int D, const mx::Stream& s) {
  return view(x, {B, n, L, D}, {(int64_t)L * n * D, D, (int64_t)n * D, 1}, first, s);
}

mx::array write(const mx::array& rows, int64_t first, int L, const mx::array& buffer, int start,
                const std::optional<Rope>& rope, const Optional& freqs, const mx::Stream& s) {
  Arrays inputs{rows, buffer};
  if (rope && freqs) inputs.push_back(*freqs);
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = split_heads(contiguous(in[0], s), first, out.shape(0), L, out.shape(1), out.shape(3), s);
    take(in[1], out, s);
    auto to = positions(out, start, L, s);
    if (!rope) return copy_rows(x, to, s);
    turn(*rope, x, to, {}, in.size() > 2 ? Optional(contiguous(in[2], s)) : Optional(), s);
  };
  return make("CacheWrite", buffer.shape(), buffer.dtype(), s, std::move(inputs), eval);
}

void read(const mx::array& q, const mx::array& keys, const mx::array& values, mx::array& out, float scale, bool causal,
          const Rope& rope, const Optional& freqs, const mx::Stream& s) {
  int B = q.shape(0), n = q.shape(1), L = q.shape(2), D = q.shape(3), end = rope.offset + L;
  mx::array turned(q.shape(), q.dtype(), nullptr, {});
  allocate(turned);
  auto to = split_heads(turned, 0, B, L, n, D, s), y = split_heads(out, 0, B, L, n, D, s);
  turn(rope, q, to, {}, freqs, s);
  attend(causal && L > 1 ? Mask::causal : Mask::none, false, scale,
         {to, positions(keys, 0, end, s), positions(values, 0, end, s)}, y, s);
}

namespace {

// One attention layer's step, between its projections: rope, the cache's update and attention over it.
// -> y (B, L, H D), keys, values. All of one float dtype; offset + L <= capacity.
std::tuple<mx::array, mx::array, mx::array> attention_step(
    const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& keys, const mx::array& values,
    int offset, int heads, int kv_heads, float scale, bool causal, int dims, bool traditional,
    std::optional<float> base, float rope_scale, const Optional& freqs) {
  auto s = mx::to_stream({});
  int L = q.shape(1), D = keys.shape(3);
  for (auto x : {&q, &k, &v, &keys, &values})
    if (x->dtype() != q.dtype() || !is_float(x->dtype()) || x->shape(0) != q.shape(0) || !x->size())
      throw std::invalid_argument("[attention_step] needs arrays of one float dtype and one batch.");
  if (!ours(s) || q.shape(2) != heads * D || k.shape(2) != kv_heads * D || v.shape(2) != kv_heads * values.shape(3) ||
      values.shape(3) != D || k.shape(1) != L || v.shape(1) != L || offset < 0 || offset + L > keys.shape(2) ||
      offset + L > values.shape(2) || dims > D || dims % 2 || base.has_value() == freqs.has_value() ||
      (freqs && freqs->size() != (size_t)dims / 2) || kv_heads != keys.shape(1) || heads % kv_heads)
    throw std::invalid_argument("[attention_step] shapes do not fit.");
  Rope rope{dims, traditional, rope_scale, offset, base ? inverse_frequencies(*base, dims / 2) : nullptr};
  Optional f;
  if (freqs) f = mx::astype(*freqs, mx::float32, s);
  auto new_keys = write(k, 0, L, keys, offset, rope, f, s), new_values = write(v, 0, L, values, offset, {}, {}, s);
  Arrays inputs{q, new_keys, new_values};
  if (f) inputs.push_back(*f);
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    allocate(out);
    auto rows = split_heads(contiguous(in[0], s), 0, out.shape(0), L, heads, D, s);
    read(rows, in[1], in[2], out, scale, causal, rope, in.size() > 3 ? Optional(contiguous(in[3], s)) : Optional(), s);
  };
  return {make("CacheAttention", q.shape(), q.dtype(), s, std::move(inputs), eval), new_keys, new_values};
}

}  // namespace

void bind_cache(nb::module_& m) {
  m.def("append", &append, "buffer"_a, "rows"_a, "start"_a);
  m.def("attention_step", &attention_step, "q"_a, "k"_a, "v"_a, "keys"_a, "values"_a, "offset"_a, "heads"_a,
        "kv_heads"_a, "scale"_a, "causal"_a, "dims"_a, "traditional"_a, "base"_a.none(), "rope_scale"_a,
        "freqs"_a.none());
}

}  // namespace toast
