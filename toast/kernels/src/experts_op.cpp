// What a mixture's arrays must be.
#include "experts_op.h"

#include "mlx/transforms.h"

namespace toast {
namespace {

void refuse(bool bad, const char* why) {
  if (bad) throw std::invalid_argument(std::string("[DecoderLayers] experts: ") + why);
}

Shares shares_named(const std::string& name) {
  refuse(name != "all" && name != "normed" && name != "used", "weighed by all, normed or used.");
  return name == "all" ? Shares::of_all : name == "normed" ? Shares::normed : Shares::of_used;
}

void add_router(const RouterTuple& router, int width, mx::Dtype dtype, Experts& e, Arrays& all) {
  auto& [w, scales, biases, group, bits] = router;
  refuse(w.ndim() != 2 || w.shape(0) != e.count, "a row of the router for each.");
  Arrays parts{w};
  if (scales) parts.insert(parts.end(), {*scales, biases.value_or(*scales)});
  mx::eval(parts);
  for (auto& part : parts) refuse(!part.flags().row_contiguous, "a contiguous router.");
  all.insert(all.end(), parts.begin(), parts.end());
  refuse(mx::promote_types(parts.back().dtype(), dtype) != dtype, "a dtype that the router keeps.");
  if (!scales) {
    refuse(!is_float(w.dtype()) || w.shape(1) != width, "a router of the layer's width.");
    e.float_router = {w.data<char>(), type_of(w), 1, width, width, e.count};
    return;
  }
  Affine a{w, *scales, biases.value_or(*scales), group, bits};
  refuse(!biases || !bits || !is_supported(mx::array({1, width}, dtype, nullptr, {}), a), "a router in affine form.");
  e.router = a.matrix();
}

ExpertWeights stack(const Affine& a, int count) {
  refuse(a.w.shape(0) != count, "as many of each matrix.");
  return {a.matrix(), std::shared_ptr<std::atomic<char>[]>(new std::atomic<char>[count]())};
}

}  // namespace

Experts make_experts(const ExpertsTuple& given, const std::vector<Affine>& linears, mx::Dtype dtype, Arrays& all) {
  auto& [router, used, shares] = given;
  Experts e;
  e.count = linears[4].w.shape(0), e.used = used, e.shares = shares_named(shares);
  refuse(used < 1 || used > e.count, "some of them see a row.");
  e.gate = stack(linears[4], e.count), e.up = stack(linears[5], e.count), e.down = stack(linears[6], e.count);
  add_router(router, e.gate.first.K, dtype, e, all);
  return e;
}

}  // namespace toast
