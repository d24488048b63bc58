// What Python sees: a mapped vocabulary, what it makes of a text, and the making of its file.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "build.h"
#include "encode.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace vocabulary;

namespace {

constexpr size_t LONG = 1 << 14;  // bytes of a text that is read without Python's lock

nb::bytes to_bytes(std::string_view s) { return nb::bytes(s.data(), s.size()); }

std::vector<uint32_t> numbers(nb::handle sequence) {
  nb::object list = nb::steal(PySequence_Fast(sequence.ptr(), "ids: a list of numbers"));
  if (!list.is_valid()) nb::raise_python_error();
  Py_ssize_t n = PySequence_Fast_GET_SIZE(list.ptr());
  std::vector<uint32_t> out(n);
  for (Py_ssize_t i = 0; i < n; i++) {
    unsigned long value = PyLong_AsUnsignedLong(PySequence_Fast_GET_ITEM(list.ptr(), i));
    if (value == (unsigned long)-1 && PyErr_Occurred()) nb::raise_python_error();
    if (value > 0xffffffffu) {
      PyErr_SetString(PyExc_OverflowError, "an id is too large");
      nb::raise_python_error();
    }
    out[i] = value;
  }
  return out;
}

std::string_view utf8(nb::str text) {
  Py_ssize_t n;
  const char* p = PyUnicode_AsUTF8AndSize(text.ptr(), &n);
  if (!p) nb::raise_python_error();  // half a surrogate pair
  return {p, (size_t)n};
}

nb::object text_of(std::string_view s) {
  nb::object found = nb::steal(PyUnicode_DecodeUTF8(s.data(), s.size(), "replace"));
  if (!found.is_valid()) nb::raise_python_error();
  return found;
}

// The tokens of a text and those around it.
struct Encoding {
  std::vector<Token> tokens;
  size_t before, after;

  template <typename F>
  nb::object list(F&& item) const {
    nb::object out = nb::steal(PyList_New(tokens.size()));
    if (!out.is_valid()) nb::raise_python_error();
    for (size_t i = 0; i < tokens.size(); i++) PyList_SET_ITEM(out.ptr(), i, item(i).release().ptr());
    return out;
  }
  nb::object ids() const {
    return list([&](size_t i) { return nb::int_(tokens[i].id); });
  }
  nb::object offsets() const {
    return list([&](size_t i) { return nb::make_tuple(tokens[i].begin, tokens[i].end); });
  }
  nb::object special_tokens_mask() const {
    return list([&](size_t i) { return nb::int_(int(i < before || i >= tokens.size() - after)); });
  }
  nb::object type_ids() const {
    return list([&](size_t) { return nb::int_(0); });
  }
  void truncate(size_t n, const std::string& direction) {
    size_t drop = tokens.size() - std::min(n, tokens.size());
    if (direction == "left") {
      tokens.erase(tokens.begin(), tokens.begin() + drop);
      before -= std::min(before, drop);
    } else {
      tokens.resize(tokens.size() - drop);
      after -= std::min(after, drop);
    }
  }
};

nb::object encode(const Vocabulary& v, nb::str text, nb::object before, nb::object after, int trim) {
  std::string_view data = utf8(text);
  Encoding out{{}, 0, 0};
  try {
    if (data.size() > LONG) {
      nb::gil_scoped_release release;
      out.tokens = v.encode(data, trim);
    } else {
      out.tokens = v.encode(data, trim);
    }
  } catch (const Unsure&) {
    return nb::none();
  }
  std::vector<Token> first, last;
  for (uint32_t id : numbers(before)) first.push_back({id, 0, 0});
  for (uint32_t id : numbers(after)) last.push_back({id, 0, 0});
  out.before = first.size();
  out.after = last.size();
  out.tokens.insert(out.tokens.begin(), first.begin(), first.end());
  out.tokens.insert(out.tokens.end(), last.begin(), last.end());
  return nb::cast(std::move(out));
}

std::string_view content(const Form& form, const Added& a) {
  uint64_t size = form.count<uint8_t>(CONTENTS), begin = std::min<uint64_t>(a.begin, size);
  return {(const char*)form.at<uint8_t>(CONTENTS) + begin, std::min<uint64_t>(a.size, size - begin)};
}

// (id, content, special, normalized) of the added tokens that are wanted.
template <typename F>
nb::list added(const Vocabulary& v, F&& wanted) {
  const Form& form = v.form();
  nb::list out;
  for (size_t i = 0; i < form.count<Added>(ADDED); i++) {
    const Added& a = form.at<Added>(ADDED)[i];
    std::string_view text = content(form, a);
    if (!wanted(a, text)) continue;
    out.append(nb::make_tuple(a.token, text_of(text), bool(a.flags & ADDED_SPECIAL), bool(a.flags & NORMALIZED)));
  }
  return out;
}

nb::list added_in(const Vocabulary& v, nb::str text) {
  std::string_view in = utf8(text);
  return added(v, [&](const Added& a, std::string_view content) {
    bool barred = content.starts_with("<|") || content.starts_with("<\xef\xbd\x9c");
    return a.flags & ADDED_SPECIAL || barred || in.find(content) != in.npos;
  });
}

nb::object find_added(const Vocabulary& v, nb::str text) {
  std::string_view sought = utf8(text);
  const Form& form = v.form();
  for (size_t i = 0; i < form.count<Added>(ADDED); i++) {
    const Added& a = form.at<Added>(ADDED)[i];
    if (a.size == sought.size() && content(form, a) == sought) return nb::int_(a.token);
  }
  return nb::none();
}

nb::list words(const Vocabulary& v, nb::str text) {
  std::string_view data = utf8(text);
  const uint8_t* p = (const uint8_t*)data.data();
  nb::list out;
  Splitter(v.form()).words(p, p + data.size(),
                           [&](const uint8_t* a, const uint8_t* b) { out.append(nb::make_tuple(a - p, b - p)); });
  return out;
}

nb::list texts(const Vocabulary& v) {
  nb::list out;
  for (uint32_t i = 0; i < v.form().tokens(); i++) out.append(to_bytes(v.form().text(i)));
  return out;
}

nb::bytes build_form(nb::dict parts) {
  Source s{};
  auto options = numbers(parts["options"]);
  if (options.size() != sizeof(Options) / 4) throw nb::value_error("options");
  memcpy(&s.options, options.data(), sizeof(Options));
  const std::pair<const char*, Section> given[] = {
      {"settings", SETTINGS}, {"class_at", CLASS_AT}, {"classes", CLASSES}, {"splits", SPLITS},
      {"states", STATES},     {"quick_at", QUICK_AT}, {"quick", QUICK},     {"taken", TAKEN},
      {"parts", PARTS},       {"composed", COMPOSED}, {"steps", STEPS},     {"inserted", INSERTED},
      {"charsmap", CHARSMAP}, {"replaced", REPLACED}, {"kind_at", KIND_AT}, {"kinds", KINDS},
      {"spelled", SPELLED}};
  for (auto [name, section] : given) {
    nb::bytes b = nb::cast<nb::bytes>(parts[name]);
    s.sections[section].assign(b.c_str(), b.size());
  }
  for (nb::handle text : nb::cast<nb::list>(parts["texts"])) {
    nb::bytes b = nb::cast<nb::bytes>(text);
    s.texts.emplace_back(b.c_str(), b.size());
  }
  auto bytes_of = [&](const char* name) {
    nb::bytes b = nb::cast<nb::bytes>(parts[name]);
    if (b.size() != s.texts.size()) throw nb::value_error(name);
    return std::vector<uint8_t>(b.c_str(), b.c_str() + b.size());
  };
  s.flags = bytes_of("flags");
  s.findable = bytes_of("findable");
  nb::bytes merges = nb::cast<nb::bytes>(parts["merges"]);
  if (merges.size() % 12) throw nb::value_error("merges");
  s.merges.resize(merges.size() / 4);
  memcpy(s.merges.data(), merges.c_str(), merges.size());
  for (uint32_t x : s.merges)
    if (x >= s.texts.size()) throw nb::value_error("merges");
  nb::bytes scores = nb::cast<nb::bytes>(parts["scores"]);
  if (s.options.model == SCORED && scores.size() != 8 * (s.texts.size() + 1)) throw nb::value_error("scores");
  s.scores.resize(scores.size() / 8);
  memcpy(s.scores.data(), scores.c_str(), 8 * s.scores.size());
  nb::bytes prefix = nb::cast<nb::bytes>(parts["prefix"]);
  s.prefix.assign(prefix.c_str(), prefix.size());
  s.symbols = numbers(parts["symbols"]);
  if (s.symbols.size() != 256) throw nb::value_error("symbols");
  for (nb::handle entry : nb::cast<nb::list>(parts["added"])) {
    nb::tuple t = nb::cast<nb::tuple>(entry);
    nb::bytes content = nb::cast<nb::bytes>(t[2]), sought = nb::cast<nb::bytes>(t[3]);
    s.added.push_back({nb::cast<uint32_t>(t[0]),
                       nb::cast<uint32_t>(t[1]),
                       {content.c_str(), content.size()},
                       {sought.c_str(), sought.size()}});
  }
  std::string file;
  {
    nb::gil_scoped_release release;
    file = build(s);
  }
  return to_bytes(file);
}

}  // namespace

NB_MODULE(_ext, m) {
  m.attr("VERSION") = VERSION;
  nb::class_<Encoding>(m, "Encoding")
      .def_prop_ro("ids", &Encoding::ids)
      .def_prop_ro("offsets", &Encoding::offsets)
      .def_prop_ro("special_tokens_mask", &Encoding::special_tokens_mask)
      .def_prop_ro("type_ids", &Encoding::type_ids)
      .def_prop_ro("overflowing", [](const Encoding&) { return nb::list(); })
      .def("__len__", [](const Encoding& e) { return e.tokens.size(); })
      .def("truncate", &Encoding::truncate, "max_length"_a, "direction"_a = "right");
  nb::class_<Vocabulary>(m, "Vocabulary")
      .def(nb::init<const std::string&>(), "path"_a, "Map a compiled vocabulary; RuntimeError for what is none.")
      .def_prop_ro(
          "settings",
          [](const Vocabulary& v) { return nb::bytes(v.form().at<char>(SETTINGS), v.form().count<char>(SETTINGS)); })
      .def("encode", &encode, "text"_a, "before"_a, "after"_a, "trim"_a,
           "The Encoding of a text between tokens; None for one that only the library can read.")
      .def(
          "decode",
          [](const Vocabulary& v, nb::object ids, bool skip_special) {
            auto found = numbers(ids);
            return text_of(v.decode(found.data(), found.size(), skip_special));
          },
          "ids"_a, "skip_special"_a)
      .def_prop_ro("size", [](const Vocabulary& v) { return v.form().tokens(); })
      .def_prop_ro("all_flags",
                   [](const Vocabulary& v) { return nb::bytes(v.form().at<char>(FLAGS), v.form().count<char>(FLAGS)); })
      .def(
          "flags", [](const Vocabulary& v, uint32_t id) { return v.form().flags(id); }, "id"_a)
      .def(
          "text", [](const Vocabulary& v, uint32_t id) { return to_bytes(v.form().text(id)); }, "id"_a)
      .def("texts", &texts, "The bytes of every token.")
      .def("words", &words, "text"_a, "(start, stop) of the words that a text is cut into, in bytes of it.")
      .def(
          "find",
          [](const Vocabulary& v, nb::bytes text) -> nb::object {
            uint32_t found = v.form().find((const uint8_t*)text.c_str(), text.size());
            return found == NONE ? nb::none() : nb::object(nb::int_(found));
          },
          "text"_a)
      .def("added_in", &added_in, "text"_a,
           "Of these the special ones, those between bars and those that are in a text.")
      .def("find_added", &find_added, "content"_a)
      .def(
          "added", [](const Vocabulary& v) { return added(v, [](auto&, auto) { return true; }); },
          "(id, content, special, normalized) of each added token.");
  m.def("build", &build_form, "parts"_a, "The file of a compiled vocabulary, as bytes.");
}
