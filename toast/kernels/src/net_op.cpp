// A gated delta net between its projections as one op.
#include "net_op.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bindings.h"
#include "mlx/transforms.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

void refuse(bool bad, const char* why) {
  if (bad) throw std::invalid_argument(std::string("[GatedDeltaNet] ") + why);
}

Numbers numbers_of(const mx::array& x) { return {x.data<char>(), type_of(x)}; }

// projected (B, T, ..), what was convolved before (B, taps - 1, channels) and states (B, v_heads, dv, dk), or none of
// both -> y (B, T, v_heads dv), and both again.
std::tuple<mx::array, mx::array, mx::array> run_net(const Net& n, const Arrays& projected, const OptionalArray& before,
                                                    const OptionalArray& states) {
  auto s = mx::to_stream({});
  refuse(!ours(s) || projected.empty() || before.has_value() != states.has_value(), "on the CPU, with all of a state.");
  std::vector<int> widths;
  auto& first = projected[0];
  for (auto& x : projected) {
    refuse(x.ndim() != 3 || x.dtype() != first.dtype() || !is_float(x.dtype()) || x.shape(0) != first.shape(0) ||
               x.shape(1) != first.shape(1) || !x.size(),
           "projections.");
    widths.push_back(x.shape(2));
  }
  n.check(widths);
  int B = first.shape(0), T = first.shape(1);
  auto type = first.dtype();
  Arrays inputs{n.conv, n.A_log, n.dt_bias, n.norm};
  inputs.insert(inputs.end(), projected.begin(), projected.end());
  if (before) {
    refuse(before->shape() != n.kept(B) || states->shape() != n.states(B), "a state of another shape.");
    inputs.insert(inputs.end(), {mx::astype(*before, type, s), mx::astype(*states, mx::float32, s)});
  }
  auto eval = [n, count = projected.size()](const Arrays& in, mx::array& y, Kept& kept, const mx::Stream& s) {
    bool continued = in.size() > 4 + count;
    auto net = n.work(contiguous(in[0], s), contiguous(in[1], s), contiguous(in[2], s), contiguous(in[3], s));
    std::vector<Projected> rows;
    for (size_t i = 0; i < count; i++) {
      auto x = rows_contiguous(in[4 + i], s);
      rows.push_back({x.data<char>(), type_of(x), x.strides(0), x.strides(1)});
    }
    size_t B = y.shape(0), T = y.shape(1);
    allocate(y);
    kept[0] = shaped(n.kept(B), y.dtype());
    allocate(*kept[0]);
    kept[1] = take_states(continued ? &in.back() : nullptr, n.states(B), s);
    DeltaNetState state{continued ? contiguous(in[4 + count], s).data<char>() : nullptr, kept[0]->data<char>(),
                        kept[1]->data<float>()};
    dispatch(s, [=, rows = std::move(rows), out = y.data<char>()] { run(net, B, T, rows, state, out); });
  };
  auto [y, all] = make_keeping("GatedDeltaNet", shaped({B, T, n.v_heads * n.dv}, type),
                               {shaped(n.kept(B), type), shaped(n.states(B), mx::float32)}, s, std::move(inputs), eval);
  return {y, all[0], all[1]};
}

// Of q, k, v, z, a, b: the projection, the first column, from a group of heads to the next, heads in a group.
using PartTuple = std::tuple<int, int, int, int>;

// (channels, taps, 1), as MLX has them, by taps: computed, since threads share a net.
mx::array by_tap(const mx::array& conv) {
  refuse(conv.ndim() != 3 || conv.shape(2) != 1, "a short convolution.");
  auto turned = mx::contiguous(mx::transpose(mx::squeeze(conv, 2)));
  mx::eval(turned);
  return turned;
}

Net made(std::array<int, 4> heads, const std::vector<PartTuple>& parts, const mx::array& conv, const mx::array& A_log,
         const mx::array& dt_bias, const mx::array& norm, float eps) {
  Net n{heads[0], heads[1], heads[2], heads[3], {}, by_tap(conv), A_log, dt_bias, norm, eps};
  for (auto [which, first, group, each] : parts) {
    refuse(which < 0 || first < 0 || group < 0 || each < 1, "parts.");
    size_t i = n.parts.size(), D = i < 2 ? n.dk : i < 4 ? n.dv : 1;
    n.parts.push_back({which, (size_t)first, (size_t)group, (size_t)each, D});
  }
  n.check();
  return n;
}

}  // namespace

void Net::check() const {
  refuse(k_heads < 1 || v_heads < 1 || v_heads % k_heads || dk < 1 || dv < 1, "heads.");
  refuse(parts.size() != 6, "six parts.");
  refuse(conv.shape(1) != channels() || taps() < 1 || taps() > (int)MOST_TAPS || !is_float(conv.dtype()),
         "a short convolution.");
  for (auto x : {&A_log, &dt_bias}) refuse(x->shape() != mx::Shape{v_heads} || !is_float(x->dtype()), "numbers.");
  refuse(norm.shape() != mx::Shape{dv} || !is_float(norm.dtype()), "a norm.");
}

void Net::check(const std::vector<int>& widths) const {
  for (size_t i = 0; i < parts.size(); i++) {
    auto& part = parts[i];
    size_t heads = i < 2 ? k_heads : v_heads;
    refuse(part.which >= (int)widths.size() || heads % part.each, "parts.");
    refuse(part.first + (heads / part.each - 1) * part.group + part.each * part.D > (size_t)widths[part.which],
           "projections.");
  }
}

DeltaNet Net::work(const mx::array& conv, const mx::array& A_log, const mx::array& dt_bias,
                   const mx::array& norm) const {
  DeltaNet net{(size_t)v_heads,
               (size_t)(v_heads / k_heads),
               (size_t)dk,
               (size_t)dv,
               (size_t)taps(),
               {},
               conv.data<char>(),
               norm.data<char>(),
               type_of(conv),
               type_of(norm),
               numbers_of(A_log),
               numbers_of(dt_bias),
               eps};
  std::copy(parts.begin(), parts.end(), net.parts.begin());
  return net;
}

void bind_net(nb::module_& m) {
  nb::class_<Net>(m, "GatedDeltaNet", "What stands between the projections of a gated delta net, as one op.")
      .def(
          "__init__",
          [](Net* self, std::array<int, 4> heads, const std::vector<PartTuple>& parts, const mx::array& conv,
             const mx::array& A_log, const mx::array& dt_bias, const mx::array& norm,
             float eps) { new (self) Net(made(heads, parts, conv, A_log, dt_bias, norm, eps)); },
          nb::kw_only(), "heads"_a, "parts"_a, "conv"_a, "A_log"_a, "dt_bias"_a, "norm"_a, "eps"_a)
      .def("__call__", &run_net, "projected"_a, "before"_a.none(), "state"_a.none());
}

}  // namespace toast
