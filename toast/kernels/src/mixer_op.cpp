// A mixer as one op, from what its projections give.
#include "mixer_op.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "mlx/transforms.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// projected (B, T, ..), what was convolved before (B, rows, channels) and states (B, heads, dv, dk), or none of both ->
// y (B, T, width), and both again.
std::tuple<mx::array, mx::array, mx::array> run_mixer(const MixerOp& m, const Arrays& projected,
                                                      const OptionalArray& before, const OptionalArray& states) {
  auto s = mx::to_stream({});
  bool whole = before.has_value() == states.has_value() || !m.work.heads;
  refuse_mixer(!ours(s) || projected.empty() || !whole, "on the CPU, with all of a state.");
  std::vector<int> widths;
  auto& first = projected[0];
  for (auto& x : projected) {
    refuse_mixer(x.ndim() != 3 || x.dtype() != first.dtype() || x.shape(0) != first.shape(0) ||
                     x.shape(1) != first.shape(1) || !x.size(),
                 "projections.");
    widths.push_back(x.shape(2));
  }
  auto type = first.dtype();
  m.check(widths, type);
  int B = first.shape(0), T = first.shape(1);
  auto kept = kept_shape(m.work, B), kept_states = states_shape(m.work, B);
  Arrays inputs = projected;
  refuse_mixer((before && before->shape() != kept) || (states && states->shape() != kept_states), "a state's shape.");
  if (before) inputs.push_back(mx::astype(*before, type, s));
  if (states) inputs.push_back(mx::astype(*states, mx::float32, s));
  auto eval = [m, count = projected.size(), begun = before.has_value()](const Arrays& in, mx::array& y, Kept& kept,
                                                                        const mx::Stream& s) {
    std::vector<Projected> rows;
    for (size_t i = 0; i < count; i++) {
      auto x = rows_contiguous(in[i], s);
      rows.push_back({x.data<char>(), type_of(x), x.strides(0), x.strides(1)});
    }
    size_t B = y.shape(0), T = y.shape(1);
    allocate(y);
    auto states = in.size() > count + begun ? &in.back() : nullptr;
    auto state = take_state(begun ? &in[count] : nullptr, states, m.work, B, y.dtype(), kept[0], kept[1], s);
    dispatch(s, [=, rows = std::move(rows), out = y.data<char>()] { m.work.run(B, T, rows, state, out); });
  };
  auto [y, all] = make_keeping("Mixer", shaped({B, T, (int)m.work.width}, type),
                               {shaped(kept, type), shaped(kept_states, mx::float32)}, s, std::move(inputs), eval);
  return {y, all[0], all[1]};
}

}  // namespace

mx::array numbers(const mx::array& x, const mx::Shape& shape) {
  refuse_mixer(x.shape() != shape || !is_float(x.dtype()), "numbers.");
  auto one = mx::contiguous(x);
  mx::eval(one);
  return one;
}

mx::array by_tap(const mx::array& conv, int channels) {
  bool known = conv.ndim() == 3 && conv.shape(0) == channels && conv.shape(2) == 1 && conv.shape(1) >= 1 &&
               conv.shape(1) <= (int)MOST_TAPS;
  refuse_mixer(!known, "a short convolution.");
  return numbers(mx::transpose(mx::squeeze(conv, 2)), {conv.shape(1), channels});
}

void MixerOp::check(const std::vector<int>& widths, mx::Dtype of) const {
  refuse_mixer(!is_float(of) || (dtype && *dtype != of), "projections of another dtype.");
  refuse_mixer(widths.size() != work.projections.size(), "so many projections.");
  for (size_t i = 0; i < widths.size(); i++) refuse_mixer((size_t)widths[i] < work.projections[i], "projections.");
}

MixerState take_state(const mx::array* before, const mx::array* states_before, const Mixer& m, int B, mx::Dtype dtype,
                      OptionalArray& kept, OptionalArray& states, const mx::Stream& s) {
  kept = shaped(kept_shape(m, B), dtype);
  allocate(*kept);
  states = take_states(m.heads ? states_before : nullptr, states_shape(m, B), s);
  return {before ? contiguous(*before, s).data<char>() : nullptr, kept->data<char>(), states->data<float>()};
}

void bind_mixer(nb::module_& m) {
  nb::class_<MixerOp>(m, "Mixer", "What stands between a layer's projections beside attention or in its place.")
      .def("__call__", &run_mixer, "projected"_a, "before"_a.none(), "state"_a.none(),
           "What the projections give (B, T, ..), what was convolved before (B, taps - 1, channels) and states (B, "
           "heads, dv, dk),\nor None -> y (B, T, width), and both again; a mixer without states gives an empty array.");
}

}  // namespace toast
