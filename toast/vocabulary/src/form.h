// The compiled form of a vocabulary: a file of sections that is mapped and never parsed. docs/formats.md describes it.
// Nothing in it is trusted: sizes are checked when it is opened, whatever leads from one section to another is
// checked where it is used, so that a damaged file gives wrong tokens at worst.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace vocabulary {

constexpr char MAGIC[8] = {'t', 'o', 'a', 's', 't', 'v', 'o', 'c'};
constexpr uint32_t VERSION = 2;
constexpr uint32_t NONE = ~0u;
constexpr uint32_t PROBES = 512;  // slots that are looked at for one key: what is made stays far below

enum Section : uint32_t {
  SETTINGS,  // JSON, for Python
  OPTIONS,   // Options
  TEXT,      // the bytes of all tokens, one after the other
  TEXT_AT,   // u32 (tokens + 1): where each begins
  FLAGS,     // u8 (tokens)
  SLOTS,     // u32 (a power of two): token + 1 by the hash of its bytes, 0 for none
  MERGES,    // Merge (a power of two): by the hash of its pair
  SYMBOLS,   // u32 (256): the token of each byte
  SAFE,      // bits (a power of two): hashes of pairs of characters that are inside of a token
  CLASS_AT,  // u16 (8704): for 128 code points each, their block in CLASSES
  CLASSES,   // u8 (128 a block): class of a code point for the automata
  SPLITS,    // Split: the automata that cut a text, one after the other, then those of what is replaced in it
  STATES,    // u16: their transitions
  QUICK_AT,  // as CLASS_AT
  QUICK,     // u8: rank of the combining class, + 64 where NFC may change something; 255: the library is needed
  TAKEN,     // u32 (3 a row), by the first: a character, and where its canonical decomposition is in PARTS: begin, size
  PARTS,     // u32: characters
  COMPOSED,  // u32 (3 a row), by the first two: two characters and what they become
  ADDED,     // Added
  CONTENTS,  // the bytes of the added tokens
  NODES,     // Node: tries of the added tokens' bytes; 0 and 1 are the roots, of the raw and of the normalized text
  EDGES,     // u32: byte | node << 8
  STEPS,     // Step: what is done to a text first
  INSERTED,  // UTF-8: what is put in the place of something
  CHARSMAP,  // u32: SentencePiece's double array of what it replaces
  REPLACED,  // UTF-8: what by, each up to a NUL
  KIND_AT,   // as CLASS_AT
  KINDS,     // u8: Kind
  SPELLED,   // as TAKEN: a character and what it becomes by itself
  TRIE,      // Unit: a double array of the tokens of Unigram and WordPiece
  SCORES,    // f64 (tokens + 1): logarithms of Unigram's, and that of what is unknown
  SECTIONS
};

// ALONE: its text becomes this token and no other; PLAIN: its text is not spelled in the alphabet of bytes
enum Flag : uint8_t { KNOWN = 1, ALONE = 2, SPECIAL = 4, PLAIN = 8 };
enum AddedFlag : uint32_t { ADDED_SPECIAL = 1, LSTRIP = 2, RSTRIP = 4, NORMALIZED = 16 };
// Where a blank is put before a text: from ALWAYS on by Metaspace, which does not see added tokens.
enum Prefix : uint32_t { NO_PREFIX, EACH, ALWAYS, FIRST, NEVER };
enum Decoder : uint32_t { BYTES, PIECES, METASPACE, SPACED, WORDS };
enum ModelKind : uint32_t { MERGED, SCORED, LONGEST };  // byte-pair encoding, Unigram, WordPiece
// What is done to a text. COMPOSE: NFC or NFKC, as the tables are; MAP: SentencePiece's table; REPLACE: what
// split a finds, by INSERTED[b, b + c); STRIP: blanks (c: only U+0020) at its beginning (a) and its end (b); SPELL: to
// each character by itself
enum StepKind : uint32_t { COMPOSE, MAP, REPLACE, STRIP, SPELL };
// Of characters. JOINS: goes together with the one before, PREPENDS: with the one after, CONTROL: with none, in a
// grapheme cluster; FOLLOWS: with some that are before it. RESPELLED: is in SPELLED; GONE: becomes nothing; APART: gets
// blanks around it; ASKED: the library is needed
enum Kind : uint8_t {
  JOINS = 1,
  PREPENDS = 2,
  CONTROL = 4,
  FOLLOWS = 8,
  RESPELLED = 16,
  GONE = 32,
  APART = 64,
  ASKED = 128
};

struct Options {
  uint32_t characters;      // 0: symbols are bytes; 1: characters
  uint32_t falls_back;      // unknown characters become the tokens of their bytes
  uint32_t unknown, fuses;  // the token of an unknown symbol, NONE: it is left out; whether those in a row have one
  uint32_t ignores_merges;  // a word that is a token is that token
  uint32_t blanks;          // a blank becomes U+2581
  uint32_t prefix;          // Prefix
  uint32_t cuts_blanks;     // a word begins at each U+2581
  uint32_t decoder;         // Decoder
  uint32_t strip;        // PIECES: so many blanks that a decoded text begins with; METASPACE: those of its first token;
                         // WORDS: whether those before punctuation go
  uint32_t model;        // ModelKind
  uint32_t drops_space;  // a text is cut at white space, which is left out, before Metaspace
  uint32_t cuts;         // how many of SPLITS cut a text
  uint32_t longest;      // bytes of Unigram's longest token; characters of a word that WordPiece looks at
  uint32_t continues;    // WordPiece: the base of the unit that its prefix of tokens inside of a word leads to
};
struct Merge {
  uint32_t left, right, rank, token;  // token NONE: an empty slot
};
struct Split {
  uint32_t states, classes, begin, keeps_rest;  // begin: in STATES; a state has classes + 1 entries: next << 1 | match
};
struct Added {
  uint32_t token, flags, begin, size;
};
struct Step {
  uint32_t kind, a, b, c;
};
// label: the byte that leads here, 0 for a unit that is free; above it token + 1, 0 for none. The unit that a byte
// leads to is base ^ byte.
struct Unit {
  uint32_t base, label;
};
struct Node {
  uint32_t edges, added;  // edges: to those of the next node; added: index + 1
};
constexpr uint16_t DEAD = 0x7fff;
struct Triple {
  uint32_t a, b, c;
};

struct Range {
  uint64_t begin, size;
};
struct Header {
  char magic[8];
  uint32_t version, sections;
  uint64_t size;
  uint64_t sum;  // of the ranges, the settings and the options
  Range ranges[SECTIONS];
};

inline uint64_t mix(uint64_t a) {
  a ^= a >> 32;
  a *= 0xd6e8feb86659fd93ull;
  a ^= a >> 29;
  return a;
}

inline uint64_t hash(const uint8_t* p, size_t n) {
  uint64_t h = n * 0x9e3779b97f4a7c15ull, word;
  for (; n >= 8; p += 8, n -= 8) {
    memcpy(&word, p, 8);
    h = mix(h ^ word) * 0x9e3779b97f4a7c15ull;
  }
  word = 0;
  if (n) {
    memcpy(&word, p, n);
    h = mix(h ^ word) * 0x9e3779b97f4a7c15ull;
  }
  return mix(h);
}

inline uint64_t hash(uint32_t a, uint32_t b) { return mix(((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15ull); }

inline const uint8_t* bytes(std::string_view s) { return (const uint8_t*)s.data(); }

// How many characters there are in valid UTF-8.
inline size_t characters(std::string_view s) {
  return std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

// The length of the character that begins with this byte, in valid UTF-8.
inline size_t width(uint8_t first) { return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4; }

inline uint32_t decode(const uint8_t* p, size_t n) {
  if (n == 1) return p[0];
  if (n == 2) return (p[0] & 31u) << 6 | (p[1] & 63u);
  if (n == 3) return (p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
  return (p[0] & 7u) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
}

// Unicode's White_Space.
inline bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_utf8(std::string_view s);

// The sum in a header, for a file whose ranges are inside of it.
uint64_t sum_of(const uint8_t* data);

// A mapped file. The constructor throws std::runtime_error for what is none.
class Form {
 public:
  explicit Form(const std::string& path);
  Form(const uint8_t* data, size_t size);  // borrowed
  ~Form();
  Form(const Form&) = delete;
  Form& operator=(const Form&) = delete;

  template <typename T>
  const T* at(Section s) const {
    return (const T*)(data_ + header().ranges[s].begin);
  }
  template <typename T>
  size_t count(Section s) const {
    return header().ranges[s].size / sizeof(T);
  }
  const Options& options() const { return *at<Options>(OPTIONS); }
  uint32_t tokens() const { return tokens_; }
  std::string_view text(uint32_t token) const;              // empty for a token that is none
  uint32_t find(const uint8_t* p, size_t n) const;          // the token of these bytes; NONE
  const Merge* merge(uint32_t left, uint32_t right) const;  // null for a pair that does not merge
  bool inside(uint32_t before, uint32_t after) const;       // whether these characters may be inside of a token
  uint8_t flags(uint32_t token) const { return token < tokens_ ? at<uint8_t>(FLAGS)[token] : 0; }
  // the class of a character in one of the tables of two stages
  uint8_t look(Section first, Section second, uint32_t character) const {
    return at<uint8_t>(second)[at<uint16_t>(first)[character >> 7] * 128u + (character & 127)];
  }

 private:
  const Header& header() const { return *(const Header*)data_; }
  void check();
  void check_normal() const;
  void check_table(Section first, Section second, size_t limit) const;
  void check_splits() const;
  void check_steps() const;

  const uint8_t* data_ = nullptr;
  size_t size_ = 0, mapped_ = 0;
  uint32_t tokens_ = 0;
  const uint8_t* text_ = nullptr;
  const uint32_t *text_at_ = nullptr, *slots_ = nullptr;
  const Merge* merges_ = nullptr;
  uint64_t text_size_ = 0, slot_mask_ = 0, merge_mask_ = 0, safe_mask_ = 0;
};

}  // namespace vocabulary
