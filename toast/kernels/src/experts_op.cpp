// What a mixture's arrays must be.
#include "experts_op.h"

#include "mlx/transforms.h"
#include "quantized_work.h"

namespace toast {
namespace {

constexpr Refuse refuse{"[DecoderLayers] experts: "};

Shares shares_named(const std::string& name) {
  refuse(name != "all" && name != "normed" && name != "used", "weighed by all, normed or used.");
  return name == "all" ? Shares::of_all : name == "normed" ? Shares::normed : Shares::of_used;
}

void keep(const MatrixTuple& given, mx::Dtype dtype, Arrays& all) {
  auto& [w, scales, biases, group, bits] = given;
  Arrays parts{w};
  if (scales) parts.insert(parts.end(), {*scales, biases.value_or(*scales)});
  mx::eval(parts);
  for (auto& part : parts) refuse(!part.flags().row_contiguous, "contiguous matrices.");
  refuse(mx::promote_types(parts.back().dtype(), dtype) != dtype, "a dtype that products keep.");
  all.insert(all.end(), parts.begin(), parts.end());
}

// [.., width]
QuantWeights quantized(const MatrixTuple& given, int width, mx::Dtype dtype) {
  auto& [w, scales, biases, group, bits] = given;
  refuse(w.ndim() != 2 || !scales || !biases || !bits, "a matrix in affine form.");
  Affine a{w, *scales, *biases, group, bits};
  refuse(!is_supported(mx::array({1, width}, dtype, nullptr, {}), a), "affine weights of 2 to 6 or 8 bits.");
  return a.matrix();
}

Router make_router(const MatrixTuple& given, int count, int width, mx::Dtype dtype, Arrays& all) {
  auto& [w, scales, biases, group, bits] = given;
  refuse(w.ndim() != 2 || w.shape(0) != count, "a row of the router for each.");
  keep(given, dtype, all);
  if (scales) return {quantized(given, width, dtype), {}};
  refuse(!is_float(w.dtype()) || w.shape(1) != width, "a router of the layer's width.");
  return {{}, {w.data<char>(), type_of(w), 1, width, width, count}};
}

SharedExpert make_shared_expert(const std::vector<MatrixTuple>& given, int width, mx::Dtype dtype, Arrays& all) {
  if (given.empty()) return {};
  refuse(given.size() != 4, "gate, up, down and a router of what all rows see.");
  auto matrix = [&](int i, int width) {
    keep(given[i], dtype, all);
    auto w = quantized(given[i], width, dtype);
    if (is_centred(w)) w.biases = nullptr;
    return w;
  };
  SharedExpert s;
  s.gate = matrix(0, width), s.up = matrix(1, width), s.down = matrix(2, s.gate.N);
  refuse(s.up.N != s.gate.N || s.down.N != width, "shapes of what all rows see.");
  s.router = make_router(given[3], 1, width, dtype, all);
  return s;
}

ExpertWeights stack(const Affine& a, int count) {
  refuse(a.w.shape(0) != count, "as many of each matrix.");
  return {a.matrix(), std::shared_ptr<std::atomic<char>[]>(new std::atomic<char>[count]())};
}

}  // namespace

Experts make_experts(const ExpertsTuple& given, const std::vector<Affine>& linears, mx::Dtype dtype, Arrays& all) {
  auto& [router, used, shares, least, shared] = given;
  const Affine* own = &linears.back() - 2;
  Experts e;
  e.count = own->w.shape(0), e.used = used, e.shares = shares_named(shares), e.least = least;
  refuse(used < 1 || used > e.count, "some of them see a row.");
  e.gate = stack(own[0], e.count), e.up = stack(own[1], e.count), e.down = stack(own[2], e.count);
  e.router = make_router(router, e.count, e.gate.first.K, dtype, all);
  e.shared = make_shared_expert(shared, e.gate.first.K, dtype, all);
  return e;
}

}  // namespace toast
