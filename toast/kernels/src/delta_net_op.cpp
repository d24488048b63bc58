// A gated delta net from its arrays. What it computes is in recurrence_work.cpp.
#include <nanobind/stl/array.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bindings.h"
#include "mixer_op.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// Of q, k, v, z, a, b: the projection, the first column, from a group of heads to the next, heads in a group.
using PartTuple = std::tuple<int, int, int, int>;

// What each projection must have for these parts.
std::vector<size_t> columns_of(const std::vector<Part>& parts, size_t k_heads, size_t v_heads) {
  std::vector<size_t> columns;
  for (size_t i = 0; i < parts.size(); i++) {
    auto& part = parts[i];
    size_t heads = i < 2 ? k_heads : v_heads;
    refuse_mixer(heads % part.each, "parts.");
    if (columns.size() <= (size_t)part.which) columns.resize(part.which + 1);
    auto& most = columns[part.which];
    most = std::max(most, part.first + (heads / part.each - 1) * part.group + part.each * part.D);
  }
  return columns;
}

MixerOp gated_delta_net(std::array<int, 4> heads, const std::vector<PartTuple>& tuples, const mx::array& conv,
                        const mx::array& A_log, const mx::array& dt_bias, const mx::array& norm, float eps) {
  auto [k_heads, v_heads, dk, dv] = heads;
  refuse_mixer(k_heads < 1 || v_heads < 1 || v_heads % k_heads || dk < 1 || dv < 1, "heads.");
  refuse_mixer(tuples.size() != 6, "six parts.");
  std::vector<Part> parts;
  for (auto [which, first, group, each] : tuples) {
    refuse_mixer(which < 0 || which > 5 || first < 0 || group < 0 || each < 1, "parts.");
    size_t i = parts.size(), D = i < 2 ? dk : i < 4 ? dv : 1;
    parts.push_back({which, (size_t)first, (size_t)group, (size_t)each, D});
  }
  int channels = 2 * k_heads * dk + v_heads * dv;
  Arrays all{by_tap(conv, channels), numbers(A_log, {v_heads}), numbers(dt_bias, {v_heads}), numbers(norm, {dv})};
  size_t taps = all[0].shape(0);
  DeltaNet net{(size_t)v_heads,
               (size_t)(v_heads / k_heads),
               (size_t)dk,
               (size_t)dv,
               taps,
               {},
               all[0].data<char>(),
               all[3].data<char>(),
               type_of(all[0]),
               type_of(all[3]),
               numbers_of(all[1]),
               numbers_of(all[2]),
               eps};
  std::copy(parts.begin(), parts.end(), net.parts.begin());
  return {{taps - 1, net.channels(), net.heads, net.dv, net.dk, net.heads * net.dv, columns_of(parts, k_heads, v_heads),
           [net](size_t B, size_t T, const std::vector<Projected>& projected, const MixerState& state, char* y) {
             run(net, B, T, projected, state, y);
           }},
          std::move(all)};
}

}  // namespace

void bind_delta_net(nb::module_& m) {
  m.def("gated_delta_net", &gated_delta_net, nb::kw_only(), "heads"_a, "parts"_a, "conv"_a, "A_log"_a, "dt_bias"_a,
        "norm"_a, "eps"_a,
        "heads: of keys, of values, and their widths; parts, of q, k, v, z, a, b: the projection, the first column, "
        "columns from a\ngroup of heads to the next, heads in a group; conv (channels, taps, 1).");
}

}  // namespace toast
