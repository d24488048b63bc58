// scaled_dot_product_attention as an MLX op: keys and values read in place with their strides.
// Shares (batch, key/value head, tile of queries) out over the threads; the arithmetic is in attention.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>

#include "bindings.h"
#include "floats_op.h"
#include "mlx/fast.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

constexpr size_t kScores = 1 << 16;  // scores of one tile: a quarter of an L2 cache
constexpr size_t kRows = 128;        // rows of one tile, so that there are tiles for all threads
constexpr size_t kAlone = 1 << 16;   // multiply-adds not worth waking a thread for

using MaskArg = std::variant<std::monostate, std::string, mx::array>;

float* scratch(size_t n) {
  thread_local std::unique_ptr<float[]> buffer;
  thread_local size_t size = 0;
  if (size < n) buffer.reset(new float[size = n]);
  return buffer.get();
}

}  // namespace

size_t attention_tile(size_t group, size_t queries, size_t keys) {
  size_t rows = std::min(kRows, std::max<size_t>(4, kScores / keys));
  size_t tile = std::min(queries, std::max<size_t>(1, rows / group));
  return tile > 4 ? tile - tile % 4 : tile;
}

Attending attending(Mask mask, bool has_sinks, float scale, const Arrays& in, mx::array& y, const mx::Stream& s) {
  auto q = rows_contiguous(in[0], s), k = rows_contiguous(in[1], s), v = rows_contiguous(in[2], s);
  auto m = mask > Mask::causal ? rows_contiguous(in[3], s) : q;
  auto sinks = has_sinks ? contiguous(in.back(), s) : q;
  size_t B = q.shape(0), G = k.shape(1), group = q.shape(1) / G, L = q.shape(2), S = k.shape(2);
  size_t tile = attention_tile(group, L, S), tiles = (L + tile - 1) / tile;

  Attention a{};
  a.type = type_of(y), a.kept = type_of(k), a.mask = mask, a.group = group, a.keys = S, a.dk = q.shape(3), a.dv = v.shape(3);
  a.q_head = q.strides(1), a.q_row = q.strides(2), a.k_row = k.strides(2), a.v_row = v.strides(2);
  a.y_head = y.strides(1), a.y_row = y.strides(2), a.scale = scale;
  if (mask > Mask::causal) a.m_head = m.strides(1), a.m_row = m.strides(2);

  struct Base { const char* p; int64_t batch, head, row; size_t size; };
  auto base = [](const mx::array& x, int64_t head, int64_t row) {
    return Base{x.data<char>(), x.strides(0), head, row, x.itemsize()};
  };
  Base bq = base(q, group * q.strides(1), q.strides(2)), bk = base(k, k.strides(1), 0), bv = base(v, v.strides(1), 0);
  Base by = base(y, group * y.strides(1), y.strides(2)), bm{}, bs{};
  if (mask > Mask::causal) bm = base(m, group * m.strides(1), m.strides(2));
  if (has_sinks) bs = {sinks.data<char>(), 0, (int64_t)group, 0, sinks.itemsize()};

  auto at = [](const Base& x, size_t b, size_t g, size_t row) {
    return x.p ? x.p + ((int64_t)b * x.batch + (int64_t)g * x.head + (int64_t)row * x.row) * (int64_t)x.size : nullptr;
  };
  auto one = [=](int i) {
    size_t b = i / (G * tiles), g = i / tiles % G, first = (tiles - 1 - i % tiles) * tile;  // the long ones first
    Attention t = a;
    t.queries = std::min(tile, L - first);
    t.visible = (int64_t)S - (int64_t)L + (int64_t)first + 1;
    t.q = at(bq, b, g, first), t.k = at(bk, b, g, 0), t.v = at(bv, b, g, 0);
    t.y = (void*)at(by, b, g, first), t.m = at(bm, b, g, first), t.sinks = at(bs, 0, g, 0);
    kernels().attention(t, scratch(kernels().attention_scratch(t)));
  };
  return {(int)(B * G * tiles), B * G * group * L * S * (a.dk + a.dv), one};
}

void attend(std::vector<Attending> all, const mx::Stream& s) {
  dispatch(s, [all = std::move(all)] {
    std::vector<std::pair<const Attending*, int>> pieces;
    size_t work = 0;
    for (auto& part : all) {
      for (int i = 0; i < part.count; i++) pieces.push_back({&part, i});
      work += part.work;
    }
    auto one = [&](int i) { pieces[i].first->run(pieces[i].second); };
    if (work < kAlone)
      for (size_t i = 0; i < pieces.size(); i++) one(i);
    else
      parallel(pieces.size(), one);
  });
}

namespace {

// y (B, H, L, dv) laid out as (B, L, H, dv), so that merging the heads afterwards copies nothing.
void allocate_merged(mx::array& y) {
  int64_t H = y.shape(1), L = y.shape(2), dv = y.shape(3);
  bool rows = H == 1 || L == 1;
  y.set_data(mx::allocator::malloc(y.nbytes()), y.size(), {L * H * dv, dv, H * dv, 1}, {true, rows, false});
}

// Whether the arguments are what MLX would accept and we know; everything else is MLX's to do or to refuse.
bool known(const mx::array& q, const mx::array& k, const mx::array& v, mx::Dtype type, const mx::array* mask,
           const Optional& sinks) {
  for (auto x : {&q, &k, &v})
    if (x->ndim() != 4 || !x->size() || x->shape(0) != q.shape(0)) return false;
  if (!is_float(type) || q.shape(3) != k.shape(3) || k.shape(1) != v.shape(1) || k.shape(2) != v.shape(2) ||
      q.shape(1) % k.shape(1))
    return false;
  if (sinks && (sinks->ndim() != 1 || sinks->shape(0) != q.shape(1) || mx::promote_types(sinks->dtype(), type) != type))
    return false;
  return !mask || (mask->ndim() <= 4 && mx::promote_types(mask->dtype(), type) == type);
}

mx::array attention(const mx::array& q, const mx::array& k, const mx::array& v, float scale, const MaskArg& mask,
                    const Optional& sinks, bool force_fused, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto name = std::get_if<std::string>(&mask);
  auto given = std::get_if<mx::array>(&mask);
  auto type = mx::result_type(q, k, v);
  if (!ours(s) || (name && *name != "causal") || !known(q, k, v, type, given, sinks))
    return mx::fast::scaled_dot_product_attention(
        q, k, v, scale, name ? *name : "", given ? Optional(*given) : Optional(), sinks, force_fused, where);

  auto kept = type == mx::float32 && k.dtype() == mx::float16 && v.dtype() == mx::float16 ? mx::float16 : type;
  Arrays inputs{mx::astype(q, type, s), mx::astype(k, kept, s), mx::astype(v, kept, s)};
  Mask kind = name ? Mask::causal : !given ? Mask::none : given->dtype() == mx::bool_ ? Mask::boolean : Mask::additive;
  if (kind == Mask::causal && q.shape(2) == 1) kind = Mask::none;
  if (given) {
    auto m = kind == Mask::boolean ? *given : mx::astype(*given, type, s);
    inputs.push_back(mx::broadcast_to(m, {q.shape(0), q.shape(1), q.shape(2), k.shape(2)}, s));
  }
  if (sinks) inputs.push_back(mx::astype(*sinks, type, s));
  auto eval = [kind, scale, has_sinks = sinks.has_value()](const Arrays& in, mx::array& y, const mx::Stream& s) {
    allocate_merged(y);
    attend({attending(kind, has_sinks, scale, in, y, s)}, s);
  };
  return make("Attention", {q.shape(0), q.shape(1), q.shape(2), v.shape(3)}, type, s, std::move(inputs), eval);
}

}  // namespace

void bind_attention(nb::module_& m) {
  m.def("scaled_dot_product_attention", &attention, "q"_a, "k"_a, "v"_a, nb::kw_only(), "scale"_a,
        "mask"_a = nb::none(), "sinks"_a = nb::none(), "force_fused"_a = false, "stream"_a = nb::none());
}

}  // namespace toast
