// scaled_dot_product_attention as an MLX op: keys and values read in place with their strides.
// Who computes what is in attention_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>

#include "attention_work.h"
#include "bindings.h"
#include "mlx/fast.h"
#include "op.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

using MaskArg = std::variant<std::monostate, std::string, mx::array>;

// in: q (B, H, L, dk), k (B, G, S, dk), v (B, G, S, dv), [mask (B, H, L, S)], [sinks (H)] -> y (B, H, L, dv), which
// has its memory already; rows contiguous in y. Copies that are needed first are made on the stream.
AttentionBatch batch_of(Mask mask, bool has_sinks, float scale, const Arrays& in, mx::array& y, const mx::Stream& s) {
  auto q = rows_contiguous(in[0], s), k = rows_contiguous(in[1], s), v = rows_contiguous(in[2], s);
  int64_t G = k.shape(1), group = q.shape(1) / G, L = q.shape(2), S = k.shape(2);
  auto step = [](const mx::array& x, int64_t heads) {
    return AttentionBatch::Step{x.strides(0), heads * x.strides(1)};
  };
  Attention a{};
  a.type = type_of(y), a.kv_type = type_of(k), a.mask = mask, a.group = group, a.queries = L, a.keys = S;
  a.dk = q.shape(3), a.dv = v.shape(3), a.scale = scale, a.visible = S - L + 1;
  a.q = q.data<char>(), a.k = k.data<char>(), a.v = v.data<char>(), a.y = y.data<char>();
  a.q_head = q.strides(1), a.q_row = q.strides(2), a.k_row = k.strides(2), a.v_row = v.strides(2);
  a.y_head = y.strides(1), a.y_row = y.strides(2);
  AttentionBatch all{a, (size_t)q.shape(0), (size_t)G, step(q, group), step(k, 1), step(v, 1), step(y, group)};
  if (mask > Mask::causal) {
    auto m = rows_contiguous(in[3], s);
    all.first.m = m.data<char>(), all.first.m_head = m.strides(1), all.first.m_row = m.strides(2),
    all.m = step(m, group);
  }
  if (has_sinks) all.first.sinks = contiguous(in.back(), s).data<char>(), all.sinks = {0, group};
  return all;
}

// y (B, H, L, dv) laid out as (B, L, H, dv), so that merging the heads afterwards copies nothing.
void allocate_merged(mx::array& y) {
  int64_t H = y.shape(1), L = y.shape(2), dv = y.shape(3);
  bool rows = H == 1 || L == 1;
  y.set_data(mx::allocator::malloc(y.nbytes()), y.size(), {L * H * dv, dv, H * dv, 1}, {true, rows, false});
}

// Whether the arguments are what MLX would accept and we know; everything else is MLX's to do or to refuse.
bool known(const mx::array& q, const mx::array& k, const mx::array& v, mx::Dtype type, const mx::array* mask,
           const OptionalArray& sinks) {
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
                    const OptionalArray& sinks, bool force_fused, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto name = std::get_if<std::string>(&mask);
  auto given = std::get_if<mx::array>(&mask);
  auto type = mx::result_type(q, k, v);
  if (!ours(s) || (name && *name != "causal") || !known(q, k, v, type, given, sinks))
    return mx::fast::scaled_dot_product_attention(
        q, k, v, scale, name ? *name : "", given ? OptionalArray(*given) : OptionalArray(), sinks, force_fused, where);

  auto kv_type = type == mx::float32 && k.dtype() == mx::float16 && v.dtype() == mx::float16 ? mx::float16 : type;
  Arrays inputs{mx::astype(q, type, s), mx::astype(k, kv_type, s), mx::astype(v, kv_type, s)};
  Mask kind = name ? Mask::causal : !given ? Mask::none : given->dtype() == mx::bool_ ? Mask::boolean : Mask::additive;
  if (kind == Mask::causal && q.shape(2) == 1) kind = Mask::none;
  if (given) {
    auto m = kind == Mask::boolean ? *given : mx::astype(*given, type, s);
    inputs.push_back(mx::broadcast_to(m, {q.shape(0), q.shape(1), q.shape(2), k.shape(2)}, s));
  }
  if (sinks) inputs.push_back(mx::astype(*sinks, type, s));
  auto eval = [kind, scale, has_sinks = sinks.has_value()](const Arrays& in, mx::array& y, const mx::Stream& s) {
    allocate_merged(y);
    dispatch(s, [all = batch_of(kind, has_sinks, scale, in, y, s)] { attend({all}); });
  };
  return make("Attention", {q.shape(0), q.shape(1), q.shape(2), v.shape(3)}, type, s, std::move(inputs), eval);
}

}  // namespace

void bind_attention(nb::module_& m) {
  m.def("scaled_dot_product_attention", &attention, "q"_a, "k"_a, "v"_a, nb::kw_only(), "scale"_a,
        "mask"_a = nb::none(), "sinks"_a = nb::none(), "force_fused"_a = false, "stream"_a = nb::none());
}

}  // namespace toast
