#include "encode.h"

#include <algorithm>
#include <utility>

namespace vocabulary {

constexpr std::string_view BLANK = "\xe2\x96\x81";  // U+2581

// A token and where it is in a part of the text, in bytes.
struct Spot {
  uint32_t token;
  size_t begin, end;
};

struct Vocabulary::Run {
  Model model;
  int trim;
  std::vector<Token> out;
  std::vector<Spot> spots;
  std::vector<Piece> pieces;
  std::vector<Match> matches;
  Normal normal;
  std::string spelled, word;  // with U+2581 for blanks: by the normalizer, by Metaspace
};

// Where the characters of a part of the text come from. extra: characters that were put before it.
struct Vocabulary::Places {
  const uint32_t* origin;  // of each character, counted from first on; null: each is as far from there as here
  size_t first, extra = 0;

  Places after(size_t n) const { return {origin ? origin + n : nullptr, origin ? first : first + n}; }
  size_t at(size_t n) const { return origin ? first + origin[n] : first + n; }
  Token token(uint32_t id, size_t begin, size_t end) const {
    begin = begin > extra ? begin - extra : 0;
    end = std::max(end, extra + 1) - extra;  // what was put before has the place of what it is before
    return {id, (uint32_t)at(begin), (uint32_t)at(end - 1) + 1};
  }
};

// Counts the characters before a byte, from where it was last asked about.
struct Count {
  std::string_view text;
  size_t at = 0, byte = 0;

  size_t to(size_t there) {
    while (byte < there) at += (text[byte++] & 0xc0) != 0x80;
    while (byte > there) at -= (text[--byte] & 0xc0) != 0x80;
    return at;
  }
};

Vocabulary::Vocabulary(const std::string& path) : form_(path), raw_(form_, 0), normal_(form_, 1), steps_(form_) {}
Vocabulary::Vocabulary(const uint8_t* data, size_t size)
    : form_(data, size), raw_(form_, 0), normal_(form_, 1), steps_(form_) {}

// Blanks that a token does not count as its own: spelled as tokens spell them, or in an added token as in the text.
static void trim_blanks(Token& t, std::string_view text, bool added, bool prefixed) {
  const uint8_t* p = bytes(text);
  size_t n = text.size(), left = 0, right = 0;
  auto is_blank = [&](size_t at, size_t size) {
    uint32_t c = vocabulary::decode(p + at, size);
    return c == ' ' || (added && (is_space(c) || c == 0x120));  // which stands for a blank in tokens
  };
  for (size_t at = 0, size; at < n; at += size, left++) {
    size = added ? std::min(width(p[at]), n - at) : 1;
    if (!is_blank(at, size)) break;
  }
  for (size_t end = n, at; end; end = at, right++) {
    for (at = end - 1; added && at && (p[at] & 0xc0) == 0x80;) at--;
    if (!is_blank(at, end - at)) break;
  }
  if (left && prefixed && left == 1 && t.begin == 0) left = 0;
  t.begin = std::min<size_t>(t.begin + left, t.end);
  if (right && t.end >= right) t.end = std::max<size_t>(t.end - right, t.begin);
}

std::vector<Token> Vocabulary::encode(std::string_view text, int trim) const {
  Run run{Model(form_, text.size()), trim, {}, {}, {}, {}, {}, {}, {}};
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
    if (m.token) {
      run.out.push_back({m.token->token, (uint32_t)at, (uint32_t)(at + size)});
      if (trim) trim_blanks(run.out.back(), part_, true, trim == 2);
    } else {
      part(run, part_, at);
    }
    at += size;
    done = m.end;
  }
  return std::move(run.out);
}

// Text without added tokens of the raw kind: it is normalized, and searched for those of the other. first: characters
// before it.
void Vocabulary::part(Run& run, std::string_view text, size_t first) const {
  const Options& o = form_.options();
  Places places{nullptr, first};
  if (steps_.run(text, run.normal)) {
    text = run.normal.text;
    places.origin = run.normal.origin.data();
  }
  if (text.empty()) return;
  if (o.blanks && o.prefix < ALWAYS) {
    places.extra = o.prefix == EACH;
    spell(text, places.extra, run.spelled);
    text = run.spelled;
  }
  run.matches.clear();
  normal_.find(bytes(text), text.size(), run.matches);
  Count count{text};
  for (const Match& m : run.matches) {
    if (m.token) {
      run.spots.assign(1, {m.token->token, m.begin, m.end});
      put(run, text, count, places, text.substr(m.begin, m.end - m.begin));
    } else if (o.prefix >= ALWAYS) {
      between(run, text.substr(m.begin, m.end - m.begin), places.after(count.to(m.begin)));
    } else {
      run.spots.clear();
      words(run, text, m.begin, m.end);
      put(run, text, count, places);
    }
  }
}

// Text between added tokens, for Metaspace.
void Vocabulary::between(Run& run, std::string_view text, Places places) const {
  if (!form_.options().drops_space) return spaced(run, text, places);
  Count count{text};
  size_t begin = 0, n;
  for (size_t at = 0; at < text.size(); at += n) {
    n = width(text[at]);
    if (!is_space(vocabulary::decode(bytes(text) + at, n))) continue;
    if (begin < at) spaced(run, text.substr(begin, at - begin), places.after(count.to(begin)));
    begin = at + n;
  }
  if (begin < text.size()) spaced(run, text.substr(begin), places.after(count.to(begin)));
}

// What Metaspace sees as one.
void Vocabulary::spaced(Run& run, std::string_view text, Places places) const {
  const Options& o = form_.options();
  bool wants = o.prefix == ALWAYS || (o.prefix == FIRST && !places.at(0));
  places.extra = wants && text[0] != ' ' && text.substr(0, BLANK.size()) != BLANK;
  spell(text, places.extra, run.word);
  run.spots.clear();
  words(run, run.word, 0, run.word.size());
  Count count{run.word};
  put(run, run.word, count, places);
}

// A text with U+2581 for its blanks, and one before it.
void Vocabulary::spell(std::string_view text, bool before, std::string& out) const {
  out = before ? BLANK : std::string_view();
  for (size_t at = 0, found; at < text.size(); at = found + 1) {
    found = std::min(text.find(' ', at), text.size());
    out += text.substr(at, found - at);
    if (found < text.size()) out += BLANK;
  }
}

// The spots as tokens. shown: what their blanks are told from, instead of the tokens.
void Vocabulary::put(Run& run, std::string_view text, Count& count, const Places& places,
                     std::optional<std::string_view> shown) const {
  for (const Spot& spot : run.spots) {
    size_t begin = count.to(spot.begin);
    bool within = spot.begin < text.size() && (text[spot.begin] & 0xc0) == 0x80;
    Token t = places.token(spot.token, begin - within, count.to(spot.end));
    if (run.trim) trim_blanks(t, shown ? *shown : form_.text(t.id), bool(shown), run.trim == 2);
    run.out.push_back(t);
  }
}

void Vocabulary::words(Run& run, std::string_view text, size_t begin, size_t end) const {
  const uint8_t* p = bytes(text);
  Splitter(form_).words(p + begin, p + end,
                        [&](const uint8_t* a, const uint8_t* b) { pieces(run, text, a - p, b - p); });
}

// A word; of characters, in pieces that begin at a blank, or that no merge reaches over.
void Vocabulary::pieces(Run& run, std::string_view text, size_t at, size_t end) const {
  const Options& o = form_.options();
  if (!o.characters) return piece(run, text, at, end);
  if (o.model != MERGED && !o.cuts_blanks) return piece(run, text, at, end);
  size_t begin = at;
  uint32_t before = 0;
  bool known = true;  // the character before; unknown ones may go together
  for (size_t n; at < end; at += n) {
    n = width(text[at]);
    uint32_t c = vocabulary::decode(bytes(text) + at, n);
    bool knows = o.falls_back || is_known(text.substr(at, n));
    bool apart = o.model == MERGED && (known || knows) && !form_.inside(before, c);
    if (at > begin && (apart || (o.cuts_blanks && c == 0x2581))) {
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
  run.model.encode(bytes(text) + at, end - at, run.pieces);
  if (run.model.skipped()) return place_skipped(run, text.substr(at, end - at), at);
  size_t begin = at;
  for (const Piece& p : run.pieces) {
    if (p.size) begin = std::exchange(at, at + p.size);
    run.spots.push_back({p.token, begin, at});
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

// BERT's way to leave out blanks around punctuation, token by token.
static void tidy(std::string& word) {
  static constexpr std::pair<std::string_view, std::string_view> CHANGES[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (auto [from, to] : CHANGES)
    for (size_t at = word.find(from); at != word.npos; at = word.find(from, at + to.size()))
      word.replace(at, from.size(), to);
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
    if (o.decoder == BYTES || o.decoder == SPACED || o.decoder == WORDS) {
      std::string word = o.decoder == BYTES || first ? "" : " ";
      if (o.decoder == WORDS && !first && text.starts_with("##"))
        word = text.substr(2);
      else
        word += text;
      if (o.decoder == WORDS && o.strip) tidy(word);
      out += word;
      first = false;
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
