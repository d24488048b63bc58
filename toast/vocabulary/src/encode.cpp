#include "encode.h"

#include <algorithm>

namespace vocabulary {

static const uint8_t* bytes(std::string_view s) { return (const uint8_t*)s.data(); }

static size_t characters(std::string_view s) {
  return std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

constexpr std::string_view BLANK = "\xe2\x96\x81";  // U+2581

struct Vocabulary::Run {
  Merger merger;
  int trim;
  std::vector<Token> out;
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
  Run run{Merger(form_, text.size()), trim, {}, {}, {}, {}, {}};
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
  const std::vector<uint32_t>* origin = nullptr;  // of each character of a text that was normalized
  if (o.nfc && !is_normal(form_, text)) {
    normalize(form_, text, run.normal, run.origin);
    text = run.normal;
    origin = &run.origin;
  }
  size_t extra = 0;  // characters that were put before
  if (o.blanks) {
    run.normal.clear();
    bool prefix = o.prefix == EACH || ((o.prefix == ALWAYS || (o.prefix == FIRST && !first)) && text[0] != ' ' &&
                                       text.substr(0, BLANK.size()) != BLANK);
    if (prefix) run.normal += BLANK;
    extra = prefix;
    for (char c : text)
      if (c == ' ')
        run.normal += BLANK;
      else
        run.normal += c;
    text = run.normal;
  }
  run.matches.clear();
  if (normal_.empty())
    run.matches.push_back({nullptr, 0, text.size()});
  else
    normal_.find(bytes(text), text.size(), run.matches);
  size_t at = 0, byte = 0;  // of the normalized text: characters and bytes
  auto walk = [&](size_t to) {
    while (byte < to) at += (text[byte++] & 0xc0) != 0x80;
  };
  auto place = [&](size_t character) { return (uint32_t)(first + (character > extra ? character - extra : 0)); };
  for (const Match& m : run.matches) {
    run.pieces.clear();
    if (m.token)
      run.pieces.push_back({m.token->token, (uint32_t)(m.end - m.begin)});
    else
      words(run, text.substr(m.begin, m.end - m.begin), run.pieces);
    if (m.begin < byte) at = byte = 0;
    size_t end = m.begin;
    for (const Piece& p : run.pieces) {
      walk(end);
      bool within = end < text.size() && (text[end] & 0xc0) == 0x80;
      size_t begin = at - within, start = end;
      end += p.size;
      walk(end);
      Token t{p.token, place(begin), place(at)};
      if (origin && begin < at) {
        t.begin = first + (*origin)[begin];
        t.end = first + (*origin)[at - 1] + 1;
      }
      if (extra && at <= extra) t.end = first + 1;  // a blank that was put before has the place of what it is before
      if (run.trim && !m.token) trim_blanks(t, text.substr(start, end - start), run.trim == 2);
      run.out.push_back(t);
    }
  }
}

void Vocabulary::words(Run& run, std::string_view text, std::vector<Piece>& out) const {
  Splitter(form_).words(bytes(text), bytes(text) + text.size(),
                        [&](const uint8_t* p, const uint8_t* end) { pieces(run, p, end, out); });
}

// A word; of characters, in pieces that no token reaches over.
void Vocabulary::pieces(Run& run, const uint8_t* p, const uint8_t* end, std::vector<Piece>& out) const {
  const Options& o = form_.options();
  if (!o.characters) return run.merger.encode(p, end - p, out);
  const uint8_t* begin = p;
  uint32_t before = 0;
  while (p < end) {
    size_t n = width(*p);
    uint32_t c = vocabulary::decode(p, n);
    if (p > begin && ((o.cuts_blanks && c == 0x2581) || !form_.inside(before, c))) {
      run.merger.encode(begin, p - begin, out);
      begin = p;
    }
    before = c;
    p += n;
  }
  if (begin < end) run.merger.encode(begin, end - begin, out);
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
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
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
