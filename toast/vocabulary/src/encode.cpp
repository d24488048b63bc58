#include "encode.h"

#include <algorithm>

namespace vocabulary {

static const uint8_t* bytes(std::string_view s) { return (const uint8_t*)s.data(); }

static size_t characters(std::string_view s) {
  return std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

constexpr std::string_view BLANK = "\xe2\x96\x81";  // U+2581

// A token and where it is in a part of the text, in bytes.
struct Spot {
  uint32_t token;
  size_t begin, end;
};

struct Vocabulary::Run {
  Merger merger;
  int trim;
  std::vector<Token> out;
  std::vector<Spot> spots;
  std::vector<Piece> pieces;
  std::vector<Match> matches;
  std::string normal;
  std::vector<uint32_t> origin;
};

Vocabulary::Vocabulary(const std::string& path) : form_(path), raw_(form_, 0), normal_(form_, 1) {}
Vocabulary::Vocabulary(const uint8_t* data, size_t size) : form_(data, size), raw_(form_, 0), normal_(form_, 1) {}

// Blanks, spelled as tokens spell them, that a token does not count as its own.
static void trim_blanks(Token& t, std::string_view text, bool prefixed) {
  size_t n = text.size(), left = 0, right = 0;
  while (left < n && text[left] == ' ') left++;
  while (right < n && text[n - 1 - right] == ' ') right++;
  if (left && prefixed && left == 1 && t.begin == 0) left = 0;
  t.begin = std::min<size_t>(t.begin + left, t.end);
  if (right && t.end >= right) t.end = std::max<size_t>(t.end - right, t.begin);
}

std::vector<Token> Vocabulary::encode(std::string_view text, int trim) const {
  Run run{Merger(form_, text.size()), trim, {}, {}, {}, {}, {}, {}};
  std::vector<Match> found;
  raw_.find(bytes(text), text.size(), found);
  size_t at = 0, done = 0;  // characters and bytes before
  for (const Match& m : found) {
    if (m.begin >= done)
      at += characters(text.substr(done, m.begin - done));
    else
      at -= characters(text.substr(m.begin, done - m.begin));
    std::string_view part_ = text.substr(m.begin, m.end - m.begin);
    size_t size = characters(part_);
    if (m.token)
      run.out.push_back({m.token->token, (uint32_t)at, (uint32_t)(at + size)});
    else
      part(run, part_, at);
    at += size;
    done = m.end;
  }
  return std::move(run.out);
}

// Text without added tokens of the raw kind. first: characters before it.
void Vocabulary::part(Run& run, std::string_view text, size_t first) const {
  const Options& o = form_.options();
  if (o.prefix < ALWAYS) return segment(run, text, first, true);
  // Metaspace puts its blank before what is left of a text without any added token
  std::vector<Match> found;
  normal_.find(bytes(text), text.size(), found);
  size_t at = 0, done = 0;
  for (const Match& m : found) {
    at += characters(text.substr(done, std::max(m.begin, done) - done));
    std::string_view inside = text.substr(m.begin, m.end - m.begin);
    size_t size = characters(inside);
    if (m.token)
      run.out.push_back({m.token->token, (uint32_t)(first + at), (uint32_t)(first + at + size)});
    else
      segment(run, inside, first + at, false);
    at += size;
    done = m.end;
  }
}

// What is normalized, perhaps with added tokens of the normalized kind, and cut into words.
void Vocabulary::segment(Run& run, std::string_view text, size_t first, bool finds) const {
  const Options& o = form_.options();
  const std::vector<uint32_t>* origin = nullptr;  // of each character of a text that was normalized
  if (o.nfc && !is_normal(form_, text)) {
    normalize(form_, text, run.normal, run.origin);
    text = run.normal;
    origin = &run.origin;
  }
  size_t extra = 0;  // characters that were put before
  if (o.blanks) {
    extra = o.prefix == EACH || ((o.prefix == ALWAYS || (o.prefix == FIRST && !first)) && text[0] != ' ' &&
                                 text.substr(0, BLANK.size()) != BLANK);
    run.normal = extra ? BLANK : std::string_view();
    for (char c : text)
      if (c == ' ')
        run.normal += BLANK;
      else
        run.normal += c;
    text = run.normal;
  }
  run.matches.clear();
  if (!finds || normal_.empty())
    run.matches.push_back({nullptr, 0, text.size()});
  else
    normal_.find(bytes(text), text.size(), run.matches);
  size_t at = 0, byte = 0;  // of the normalized text: characters and bytes
  auto walk = [&](size_t to) {
    while (byte < to) at += (text[byte++] & 0xc0) != 0x80;
    while (byte > to) at -= (text[--byte] & 0xc0) != 0x80;
  };
  auto place = [&](size_t character) { return (uint32_t)(first + (character > extra ? character - extra : 0)); };
  for (const Match& m : run.matches) {
    run.spots.clear();
    if (m.token)
      run.spots.push_back({m.token->token, m.begin, m.end});
    else
      words(run, text, m.begin, m.end);
    for (const Spot& spot : run.spots) {
      walk(spot.begin);
      bool within = spot.begin < text.size() && (text[spot.begin] & 0xc0) == 0x80;
      size_t begin = at - within;
      walk(spot.end);
      Token t{spot.token, place(begin), place(at)};
      if (origin && begin < at) {
        t.begin = first + (*origin)[begin];
        t.end = first + (*origin)[at - 1] + 1;
      }
      if (extra && at <= extra) t.end = first + 1;  // a blank that was put before has the place of what it is before
      if (run.trim) trim_blanks(t, m.token ? text.substr(m.begin, m.end - m.begin) : form_.text(t.id), run.trim == 2);
      run.out.push_back(t);
    }
  }
}

void Vocabulary::words(Run& run, std::string_view text, size_t begin, size_t end) const {
  const uint8_t* p = bytes(text);
  Splitter(form_).words(p + begin, p + end,
                        [&](const uint8_t* a, const uint8_t* b) { pieces(run, text, a - p, b - p); });
}

// A word; of characters, in pieces that no token reaches over.
void Vocabulary::pieces(Run& run, std::string_view text, size_t at, size_t end) const {
  const Options& o = form_.options();
  if (!o.characters) return piece(run, text, at, end);
  size_t begin = at;
  uint32_t before = 0;
  bool known = true;  // the character before; unknown ones may go together
  for (size_t n; at < end; at += n) {
    n = width(text[at]);
    uint32_t c = vocabulary::decode(bytes(text) + at, n);
    bool knows = o.falls_back || is_known(text.substr(at, n));
    if (at > begin && ((o.cuts_blanks && c == 0x2581) || ((known || knows) && !form_.inside(before, c)))) {
      piece(run, text, begin, at);
      begin = at;
    }
    before = c;
    known = knows;
  }
  if (begin < end) piece(run, text, begin, end);
}

bool Vocabulary::is_known(std::string_view character) const {
  return form_.find(bytes(character), character.size()) != NONE;
}

void Vocabulary::piece(Run& run, std::string_view text, size_t at, size_t end) const {
  run.pieces.clear();
  run.merger.encode(bytes(text) + at, end - at, run.pieces);
  if (run.merger.skipped()) return place_skipped(run, text.substr(at, end - at), at);
  for (const Piece& p : run.pieces) {
    run.spots.push_back({p.token, at, at + p.size});
    at += p.size;
  }
}

// Where the library sees the tokens of a word that has bytes without a token: it counts what is left from the word's
// beginning, in the letters that stand for bytes, some of which are two bytes long.
void Vocabulary::place_skipped(Run& run, std::string_view word, size_t at) const {
  auto letter = [](uint8_t b) { return b > 0x20 && b < 0x7f ? 1 : 2; };
  std::vector<size_t> places;  // the byte that each byte of the letters stands for
  for (size_t i = 0; i < word.size(); i++) places.insert(places.end(), letter(word[i]), i);
  size_t begin = 0;
  for (const Piece& p : run.pieces) {
    size_t end = begin;
    for (uint8_t b : form_.text(p.token)) end += letter(b);
    end = std::min(end, places.size());
    if (begin < end) run.spots.push_back({p.token, at + places[begin], at + places[end - 1] + 1});
    begin = end;
  }
}

static bool is_utf8(std::string_view s) {
  const uint8_t* p = bytes(s);
  for (size_t i = 0, n = s.size(); i < n;) {
    uint8_t c = p[i];
    size_t size = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (!size || size > n - i) return false;
    for (size_t k = 1; k < size; k++)
      if ((p[i + k] & 0xc0) != 0x80) return false;
    if (size == 3 && ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] > 0x9f))) return false;
    if (size == 4 && ((c == 0xf0 && p[i + 1] < 0x90) || (c == 0xf4 && p[i + 1] > 0x8f))) return false;
    i += size;
  }
  return true;
}

static int hex(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

// The byte of "<0x0A>"; -1 for any other token.
static int byte_of(std::string_view t) {
  if (t.size() != 6 || t.substr(0, 3) != "<0x" || t[5] != '>' || hex(t[3]) < 0 || hex(t[4]) < 0) return -1;
  return hex(t[3]) * 16 + hex(t[4]);
}

std::string Vocabulary::decode(const uint32_t* ids, size_t n, bool skip_special) const {
  const Options& o = form_.options();
  std::string out, pending;
  auto flush = [&] {
    if (is_utf8(pending))
      out += pending;
    else
      for (size_t i = 0; i < pending.size(); i++) out += "\xef\xbf\xbd";
    pending.clear();
  };
  bool first = true;
  for (size_t i = 0; i < n; i++) {
    uint8_t flags = form_.flags(ids[i]);
    if (!(flags & KNOWN) || (skip_special && flags & SPECIAL)) continue;
    std::string_view text = form_.text(ids[i]);
    if (o.decoder == BYTES) {
      out += text;
      continue;
    }
    int byte = o.decoder == PIECES ? byte_of(text) : -1;
    if (byte >= 0) {
      pending += (char)byte;
    } else {
      flush();
      for (size_t at = 0, found; at < text.size(); at = found + BLANK.size()) {
        found = std::min(text.find(BLANK, at), text.size());
        out += text.substr(at, found - at);
        if (found < text.size() && !(o.decoder == METASPACE && first && o.strip)) out += ' ';
      }
    }
    first = false;
  }
  flush();
  size_t strip = 0;
  while (o.decoder == PIECES && strip < o.strip && strip < out.size() && out[strip] == ' ') strip++;
  return out.substr(strip);
}

}  // namespace vocabulary
