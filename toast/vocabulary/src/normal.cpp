// Source: Unicode Standard Annex 15 and, for Hangul, chapter 3.12 of the Unicode Standard. A text is taken in stretches
// that nothing goes together across: a character that never changes, and what follows that may.
#include "normal.h"

#include <algorithm>

namespace vocabulary {

void append(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += (char)c;
  } else if (c < 0x800) {
    out += {(char)(0xc0 | c >> 6), (char)(0x80 | (c & 63))};
  } else if (c < 0x10000) {
    out += {(char)(0xe0 | c >> 12), (char)(0x80 | (c >> 6 & 63)), (char)(0x80 | (c & 63))};
  } else {
    out +=
        {(char)(0xf0 | c >> 18), (char)(0x80 | (c >> 12 & 63)), (char)(0x80 | (c >> 6 & 63)), (char)(0x80 | (c & 63))};
  }
}

const Triple* find(const Form& form, Section s, uint32_t a, uint32_t b, bool pair) {
  const Triple *begin = form.at<Triple>(s), *end = begin + form.count<Triple>(s);
  auto found = std::lower_bound(begin, end, a,
                                [&](const Triple& t, uint32_t x) { return t.a != x ? t.a < x : pair && t.b < b; });
  return found != end && found->a == a && (!pair || found->b == b) ? found : nullptr;
}

namespace {

constexpr uint8_t RANK = 63, MAYBE = 64, UNSURE = 255;
constexpr uint32_t S = 0xac00, L = 0x1100, V = 0x1161, T = 0x11a7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28;
constexpr uint32_t S_COUNT = L_COUNT * V_COUNT * T_COUNT;

uint8_t kind(const Form& form, uint32_t c) {
  uint8_t found = form.look(QUICK_AT, QUICK, c);
  if (found == UNSURE) throw Unsure{};
  return found;
}

uint32_t compose(const Form& form, uint32_t a, uint32_t b) {
  if (a - L < L_COUNT && b - V < V_COUNT) return S + ((a - L) * V_COUNT + (b - V)) * T_COUNT;
  if (a - S < S_COUNT && (a - S) % T_COUNT == 0 && b - T - 1 < T_COUNT - 1) return a + (b - T);
  const Triple* found = find(form, COMPOSED, a, b, true);
  return found ? found->c : 0;
}

// A character, and how many of the text it stands for: 1 - change.
struct Part {
  uint32_t c;
  int change;
  uint8_t rank;
};

class Stretch {
 public:
  explicit Stretch(const Form& form) : form_(form) {}

  void take_apart(uint32_t c) {
    if (c - S < S_COUNT) {
      put(L + (c - S) / (V_COUNT * T_COUNT), 0);
      put(V + (c - S) / T_COUNT % V_COUNT, 1);
      if ((c - S) % T_COUNT) put(T + (c - S) % T_COUNT, 1);
    } else if (const Triple* t = find(form_, TAKEN, c, 0, false)) {
      for (uint32_t i = 0; i < t->c; i++) put(form_.at<uint32_t>(PARTS)[t->b + i], i > 0);
    } else {
      put(c, 0);
    }
  }

  // The characters in the order of their classes, put together again.
  const std::vector<Part>& finish() {
    sort();
    out_.clear();
    marks_.clear();
    bool some = false;
    int last = -1;
    Part base{};
    for (const Part& p : parts_) {
      if (!some) {
        some = !p.rank;
        if (some)
          base = p;
        else
          out_.push_back(p);
        continue;
      }
      uint32_t whole = last < p.rank ? compose(form_, base.c, p.c) : 0;
      if (whole) {
        base.c = whole;
        base.change += p.change - 1;
      } else if (p.rank) {
        marks_.push_back(p);
        last = p.rank;
      } else {
        out_.push_back(base);
        out_.insert(out_.end(), marks_.begin(), marks_.end());
        marks_.clear();
        base = p;
        last = -1;
      }
    }
    if (some) out_.push_back(base);
    out_.insert(out_.end(), marks_.begin(), marks_.end());
    parts_.clear();
    sorted_ = 0;
    return out_;
  }

 private:
  void put(uint32_t c, int change) {
    uint8_t rank = kind(form_, c) & RANK;
    if (!rank) sort();
    parts_.push_back({c, change, rank});
  }
  void sort() {
    std::stable_sort(parts_.begin() + sorted_, parts_.end(),
                     [](const Part& a, const Part& b) { return a.rank < b.rank; });
    sorted_ = parts_.size();
  }

  const Form& form_;
  std::vector<Part> parts_, out_, marks_;
  size_t sorted_ = 0;
};

}  // namespace

bool is_normal(const Form& form, std::string_view text) {
  uint8_t last = 0;
  const uint8_t *p = bytes(text), *end = p + text.size();
  while (p < end) {
    if (*p < 0x80) {
      last = 0;
      p++;
      continue;
    }
    size_t n = width(*p);
    uint8_t found = kind(form, decode(p, n));
    if (found & MAYBE || (found && found < last)) return false;
    last = found;
    p += n;
  }
  return true;
}

void normalize(const Form& form, std::string_view text, std::string& out, std::vector<uint32_t>& origin) {
  out.clear();
  origin.clear();
  Stretch stretch(form);
  const uint8_t *p = bytes(text), *end = p + text.size();
  for (uint32_t at = 0, next = 0; p < end; at = next) {  // at: characters before
    const uint8_t* begin = p;
    uint8_t last = 0;
    bool changes = false;
    do {
      uint32_t c = decode(p, width(*p));
      uint8_t found = *p < 0x80 ? 0 : kind(form, c);
      changes |= found & MAYBE || (found && found < last);
      last = found & RANK;
      p += width(*p);
      next++;
    } while (p < end && *p >= 0x80 && kind(form, decode(p, width(*p))));
    if (!changes) {
      out.append((const char*)begin, p - begin);
      for (uint32_t i = at; i < next; i++) origin.push_back(i);
      continue;
    }
    for (const uint8_t* q = begin; q < p; q += width(*q)) stretch.take_apart(decode(q, width(*q)));
    uint32_t from = at;
    for (const Part& part : stretch.finish()) {
      append(out, part.c);
      origin.push_back(part.change > 0 && from ? from - 1 : from);
      if (part.change <= 0) from += 1 - part.change;
    }
  }
}

}  // namespace vocabulary
