// A key/value cache with MLX-LM's layout (B, heads, capacity, D): rows written to it, and attention over it.
// Made of the ops' own parts, so the bits are those of rope, append and attention one after the other.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <cstring>
#include <numeric>

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

// The first n positions of a buffer's row.
mx::array positions(const mx::array& buffer, int row, int n, const mx::Stream& s) {
  return view(buffer, {1, buffer.shape(1), n, buffer.shape(3)}, buffer.strides(), row * buffer.strides(0), s);
}

// `count` rows of n D elements, from element `first` of row-contiguous x on, seen as (1, n, count, D).
mx::array split_heads(const mx::array& x, int64_t first, int count, int n, int D, const mx::Stream& s) {
  return view(x, {1, n, count, D}, {(int64_t)count * n * D, D, (int64_t)n * D, 1}, first, s);
}

int total(const Segments& segments) { return segments.back().first + segments.back().length; }

// T rows of n D elements from element `first` on, each turned by its own position: (T, n, 1, D).
mx::array turned(const mx::array& x, int64_t first, const Segments& segments, int n, int D, const Rope& rope,
                 const Optional& freqs, const mx::Stream& s) {
  int T = total(segments);
  mx::array places({T}, mx::int32, nullptr, {}), y({T, n, 1, D}, x.dtype(), nullptr, {});
  allocate(places);
  allocate(y);
  mx::cpu::get_command_encoder(s).add_temporaries({places, y});
  for (auto& part : segments) std::iota(places.data<int>() + part.first, places.data<int>() + part.first + part.length, part.offset);
  turn(rope, view(x, y.shape(), {(int64_t)n * D, D, (int64_t)n * D, 1}, first, s), y, places, freqs, s);
  return y;
}

// `out` becomes `in`: the same memory when nobody else holds it, else a copy.
void take(const mx::array& in, mx::array& out, const mx::Stream& s) {
  if (in.is_donatable() && in.flags().row_contiguous) return out.copy_shared_buffer(in);
  auto x = contiguous(in, s);
  allocate(out);
  dispatch(s, [from = x.data<char>(), to = out.data<char>(), n = out.nbytes()] { std::memcpy(to, from, n); });
}

// Rows (T, n D) of `type` from `from` on to where their segments say in a contiguous buffer (R, n, capacity, D).
void copy_rows(const char* from, Type type, const Segments& segments, mx::array& buffer, const mx::Stream& s) {
  dispatch(s, [=, to = buffer.data<char>(), kept = type_of(buffer), n = (size_t)buffer.shape(1),
               capacity = (size_t)buffer.shape(2), D = (size_t)buffer.shape(3)] {
    for (auto& part : segments)
      for (size_t t = 0; t < (size_t)part.length; t++)
        for (size_t h = 0; h < n; h++) {
          auto x = from + ((part.first + t) * n + h) * D * size_of(type);
          auto y = to + ((part.row * n + h) * capacity + part.offset + t) * D * size_of(kept);
          if (kept == type) std::memcpy(y, x, D * size_of(type));
          else kernels().from_f32((const float*)x, y, kept, D);
        }
  });
}

}  // namespace

Segments equal_segments(int B, int L, int offset) {
  Segments all;
  for (int b = 0; b < B; b++) all.push_back({b, b * L, L, offset});
  return all;
}

mx::array write(const mx::array& rows, int64_t first, const Segments& segments, const mx::array& buffer,
                const std::optional<Rope>& rope, const Optional& freqs, const mx::Stream& s) {
  Arrays inputs{rows, buffer};
  if (rope && freqs) inputs.push_back(*freqs);
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    take(in[1], out, s);
    if (!rope) return copy_rows(x.data<char>() + first * x.itemsize(), type_of(x), segments, out, s);
    auto f = in.size() > 2 ? Optional(contiguous(in[2], s)) : Optional();
    copy_rows(turned(x, first, segments, out.shape(1), out.shape(3), *rope, f, s).data<char>(), type_of(x), segments, out, s);
  };
  return make("CacheWrite", buffer.shape(), buffer.dtype(), s, std::move(inputs), eval);
}

void read(const mx::array& q, const Segments& segments, const mx::array& keys, const mx::array& values, mx::array& out,
          int n, float scale, bool causal, const Rope& rope, const Optional& freqs, const mx::Stream& s) {
  int D = keys.shape(3);
  auto x = turned(q, 0, segments, n, D, rope, freqs, s);
  std::vector<Attending> all;
  for (auto& part : segments) {
    int64_t first = (int64_t)part.first * n * D;
    int end = part.offset + part.length;
    auto y = split_heads(out, first, part.length, n, D, s);
    all.push_back(attending(causal && part.length > 1 ? Mask::causal : Mask::none, false, scale,
                            {split_heads(x, first, part.length, n, D, s), positions(keys, part.row, end, s),
                             positions(values, part.row, end, s)}, y, s));
  }
  attend(std::move(all), s);
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
      values.shape(3) != D || k.shape(1) != L || v.shape(1) != L || offset < 0 || L > keys.shape(2) - offset ||
      L > values.shape(2) - offset || dims < 2 || dims > D || dims % 2 || values.shape(1) != kv_heads || base.has_value() == freqs.has_value() ||
      (freqs && freqs->size() != (size_t)dims / 2) || kv_heads != keys.shape(1) || heads % kv_heads)
    throw std::invalid_argument("[attention_step] shapes do not fit.");
  Rope rope{dims, traditional, rope_scale, 0, base ? inverse_frequencies(*base, dims / 2) : nullptr};
  Optional f;
  if (freqs) f = mx::astype(*freqs, mx::float32, s);
  auto segments = equal_segments(q.shape(0), L, offset);
  auto new_keys = write(k, 0, segments, keys, rope, f, s), new_values = write(v, 0, segments, values, {}, {}, s);
  Arrays inputs{q, new_keys, new_values};
  if (f) inputs.push_back(*f);
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    allocate(out);
    read(contiguous(in[0], s), segments, in[1], in[2], out, heads, scale, causal, rope,
         in.size() > 3 ? Optional(contiguous(in[3], s)) : Optional(), s);
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
