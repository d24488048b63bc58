// The tokenizers library's steps, down to the places that it gives to what they change. SentencePiece's table is looked
// up for grapheme clusters of less than 6 bytes, then for characters (Unicode Standard Annex 29).
#include "steps.h"

#include <algorithm>

#include "normal.h"
#include "split.h"

namespace vocabulary {

constexpr size_t SHORT_CLUSTER = 6;  // bytes from which a cluster is not looked up whole

Steps::Steps(const Form& form) : form_(form) {
  for (int c = 0; c < 128; c++) {
    char text = (char)c;
    changes_[c] = mapped({&text, 1}).has_value();
    uint8_t kind = form_.look(KIND_AT, KINDS, c);
    const Triple* row = kind & RESPELLED ? find(form_, SPELLED, c, 0, false) : nullptr;
    uint32_t by = row && row->c == 1 ? form_.at<uint32_t>(PARTS)[row->b] : c;
    spelled_[c] = kind & (GONE | APART | ASKED) || (row && row->c != 1) || by >= 128 ? LONG : by;
  }
}

bool Steps::run(std::string_view text, Normal& out) const {
  Normal next;
  bool changed = false;
  const Step* steps = form_.at<Step>(STEPS);
  for (size_t i = 0; i < form_.count<Step>(STEPS); i++) {
    next.text.clear();
    next.origin.clear();
    if (!step(steps[i], changed ? std::string_view(out.text) : text, next)) continue;
    if (changed)
      for (uint32_t& at : next.origin) at = out.origin[at];
    std::swap(out, next);
    changed = true;
  }
  return changed;
}

bool Steps::step(const Step& s, std::string_view text, Normal& out) const {
  switch (s.kind) {
    case COMPOSE:
      if (is_normal(form_, text)) return false;
      normalize(form_, text, out.text, out.origin);
      return true;
    case MAP:
      return map(text, out);
    case REPLACE:
      return replace(s, text, out);
    case STRIP:
      return strip(s, text, out);
    case SPELL:
      return spell(text, out);
  }
  return false;
}

// ---------------------------------------------------------------- SentencePiece's table

// A changed text from its beginning on. Where the library sees the characters: one that replaces n of the text takes
// the place of the first of them, one that is added that of the last one before; what goes after a character counts as
// replaced by it, what goes before the first counts as still to come.
struct Steps::Edits {
  Normal& out;
  size_t at = 0;   // characters of the text before
  int change = 0;  // of the last character put: 1 if it was added, else minus the number of those that went after it
  bool some = false;

  void settle() {
    if (!some) return;
    out.origin.push_back(change > 0 && at ? at - 1 : at);
    if (change <= 0) at += 1 - change;
    some = false;
  }
  void keep(std::string_view part) {
    if (part.empty()) return;
    out.text += part;
    for (char c : part)
      if ((c & 0xc0) != 0x80) {
        settle();
        some = true;
        change = 0;
      }
  }
  void replace(int count, std::string_view by) {
    out.text += by;
    for (char c : by)
      if ((c & 0xc0) != 0x80) {
        settle();
        some = true;
        change = count-- > 0 ? 0 : 1;
      }
    if (count > 0 && some) change -= count;
  }
};

// What the first characters of these that the table has become.
std::optional<std::string_view> Steps::mapped(std::string_view characters) const {
  const uint32_t* units = form_.at<uint32_t>(CHARSMAP);
  size_t count = form_.count<uint32_t>(CHARSMAP), size = form_.count<char>(REPLACED);
  auto offset = [](uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); };
  if (!count) return {};
  uint32_t at = offset(units[0]);
  for (uint8_t c : characters) {
    at ^= c;
    if (!c || at >= count || (units[at] & (1u << 31 | 0xff)) != c) return {};
    uint32_t unit = units[at];
    at ^= offset(unit);
    if (!(unit >> 8 & 1)) continue;
    uint32_t begin = at < count ? units[at] & ~(1u << 31) : NONE;
    const char* replaced = form_.at<char>(REPLACED);
    if (begin >= size || (replaced[begin] & 0xc0) == 0x80) return {};
    return std::string_view(replaced + begin, strnlen(replaced + begin, size - begin));
  }
  return {};
}

uint8_t Steps::kind(std::string_view text, size_t at) const {
  return form_.look(KIND_AT, KINDS, decode(bytes(text) + at, width(text[at])));
}

// Where the grapheme cluster that begins here ends, as far as that can be told from its beginning on.
size_t Steps::cluster(std::string_view text, size_t at) const {
  uint8_t last = kind(text, at);
  if (text[at] == '\r' && at + 1 < text.size() && text[at + 1] == '\n') return at + 2;
  at += width(text[at]);
  while (at < text.size() && !(last & CONTROL)) {
    uint8_t next = kind(text, at);
    if (next & CONTROL || !(next & JOINS || last & PREPENDS)) break;
    at += width(text[at]);
    last = next;
  }
  return at;
}

// Whether this character may be inside of a cluster of Hangul, of emoji or of a conjunct.
bool Steps::may_begin_before(std::string_view text, size_t at) const {
  if (!at || !(kind(text, at) & FOLLOWS)) return false;
  for (at--; at && (text[at] & 0xc0) == 0x80;) at--;
  return kind(text, at) & (JOINS | FOLLOWS);
}

bool Steps::map(std::string_view text, Normal& out) const {
  const uint8_t* p = bytes(text);
  size_t n = text.size(), done = 0;  // what is kept as it is, and not yet put
  bool changed = false;
  Edits edits{out};
  auto change = [&](size_t begin, size_t end, std::string_view by) {
    edits.keep(text.substr(done, begin - done));
    edits.replace(characters(text.substr(begin, end - begin)), by);
    done = end;
    changed = true;
  };
  for (size_t i = 0; i < n;) {
    bool alone = p[i] < 0x80 && (i + 1 == n || p[i + 1] < 0x80) && !(p[i] == '\r' && i + 1 < n && p[i + 1] == '\n');
    if (alone && !changes_[p[i]]) {
      i++;
      continue;
    }
    size_t end = alone ? i + 1 : cluster(text, i), first = width(p[i]);
    if (end - i < SHORT_CLUSTER) {
      if (auto by = mapped(text.substr(i, end - i))) {
        if (end - i > first && may_begin_before(text, i)) throw Unsure{};
        change(i, end, *by);
        i = end;
        continue;
      }
    }
    for (; i < end; i += width(p[i]))
      if (auto by = mapped(text.substr(i, width(p[i])))) change(i, i + width(p[i]), *by);
  }
  if (!changed) return false;
  edits.keep(text.substr(done));
  edits.settle();
  return true;
}

// ---------------------------------------------------------------- other steps

bool Steps::replace(const Step& s, std::string_view text, Normal& out) const {
  const Split& split = form_.at<Split>(SPLITS)[s.a];
  std::string_view by(form_.at<char>(INSERTED) + s.b, s.c);
  Splitter splitter(form_);
  const uint8_t *p = bytes(text), *end = p + text.size(), *rest = p;
  uint32_t at = 0;  // characters before rest
  auto keep = [&](const uint8_t* to) {
    out.text.append((const char*)rest, to - rest);
    for (; rest < to; rest++)
      if ((*rest & 0xc0) != 0x80) out.origin.push_back(at++);
  };
  bool changed = false;
  while (p < end) {
    const uint8_t* stop = splitter.match(split, p, end);
    if (!stop || stop == p) {
      p += width(*p);
      continue;
    }
    keep(p);
    at += characters({(const char*)p, (size_t)(stop - p)});
    out.text += by;
    out.origin.insert(out.origin.end(), characters(by), at - 1);
    rest = p = stop;
    changed = true;
  }
  if (changed) keep(end);
  return changed;
}

bool Steps::strip(const Step& s, std::string_view text, Normal& out) const {
  const uint8_t* p = bytes(text);
  auto goes = [&](uint32_t c) { return s.c ? c == ' ' : is_space(c); };
  size_t begin = 0, end = text.size(), before = 0;
  for (; s.a && begin < end && goes(decode(p + begin, width(p[begin]))); begin += width(p[begin])) before++;
  while (s.b && end > begin) {
    size_t last = end - 1;
    while (last > begin && (p[last] & 0xc0) == 0x80) last--;
    if (!goes(decode(p + last, end - last))) break;
    end = last;
  }
  if (begin == 0 && end == text.size()) return false;
  out.text = text.substr(begin, end - begin);
  for (size_t i = begin; i < end; i++)
    if ((p[i] & 0xc0) != 0x80) out.origin.push_back(before++);
  return true;
}

bool Steps::spell(std::string_view text, Normal& out) const {
  const uint8_t *p = bytes(text), *end = p + text.size();
  bool changed = false;
  out.text.reserve(text.size());
  out.origin.reserve(text.size());
  for (uint32_t at = 0; p < end; at++) {
    if (*p < 0x80 && spelled_[*p] != LONG) {
      changed |= spelled_[*p] != *p;
      out.text += spelled_[*p++];
      out.origin.push_back(at);
      continue;
    }
    size_t n = width(*p), before = out.text.size();
    uint32_t c = decode(p, n);
    uint8_t kind = form_.look(KIND_AT, KINDS, c);
    if (kind & ASKED) throw Unsure{};
    const Triple* row = kind & RESPELLED ? find(form_, SPELLED, c, 0, false) : nullptr;
    if (kind & APART) out.text += ' ';
    if (row)
      for (uint32_t i = 0; i < row->c; i++) append(out.text, form_.at<uint32_t>(PARTS)[row->b + i]);
    else if (!(kind & GONE))
      out.text.append((const char*)p, n);
    if (kind & APART) out.text += ' ';
    out.origin.insert(out.origin.end(), characters(std::string_view(out.text).substr(before)), at);
    changed |= row || kind & (GONE | APART);
    p += n;
  }
  return changed;
}

}  // namespace vocabulary
