// Opening a compiled vocabulary and looking things up in it. Knows no texts.
#include "form.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

namespace vocabulary {

static void require(bool holds) {
  if (!holds) throw std::runtime_error("not a compiled vocabulary");
}

bool is_utf8(std::string_view s) {
  const uint8_t* p = (const uint8_t*)s.data();
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

static bool is_power(uint64_t n) { return n && !(n & (n - 1)); }

Form::Form(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status;
  if (fd < 0) throw std::runtime_error("no such file");
  bool regular = !fstat(fd, &status) && S_ISREG(status.st_mode) && status.st_size >= (off_t)sizeof(Header);
  void* found = regular ? mmap(nullptr, status.st_size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
  close(fd);
  require(found != MAP_FAILED);
  data_ = (const uint8_t*)found;
  size_ = mapped_ = status.st_size;
  try {
    check();
  } catch (...) {
    munmap(found, mapped_);
    throw;
  }
}

Form::Form(const uint8_t* data, size_t size) : data_(data), size_(size) { check(); }

Form::~Form() {
  if (mapped_) munmap((void*)data_, mapped_);
}

uint64_t sum_of(const uint8_t* data) {
  const Header& h = *(const Header*)data;
  uint64_t sum = hash((const uint8_t*)h.ranges, sizeof h.ranges);
  for (Section s : {SETTINGS, OPTIONS}) sum = mix(sum ^ hash(data + h.ranges[s].begin, h.ranges[s].size));
  return sum;
}

void Form::check() {
  require(size_ >= sizeof(Header) && !memcmp(header().magic, MAGIC, sizeof MAGIC));
  require(header().version == VERSION && header().sections == SECTIONS && header().size == size_);
  for (const Range& r : header().ranges) require(r.begin % 64 == 0 && r.begin <= size_ && r.size <= size_ - r.begin);
  require(header().sum == sum_of(data_));
  require(count<Options>(OPTIONS) == 1 && count<uint32_t>(SYMBOLS) == 256);
  size_t tokens = count<uint8_t>(FLAGS), slots = count<uint32_t>(SLOTS), merges = count<Merge>(MERGES);
  require(tokens < NONE && count<uint32_t>(TEXT_AT) == tokens + 1);
  require(is_power(slots) && is_power(merges) && is_power(count<uint8_t>(SAFE)));
  check_table(CLASS_AT, CLASSES, 255);
  check_table(QUICK_AT, QUICK, 256);
  check_table(KIND_AT, KINDS, 256);
  check_normal();
  require(count<Node>(NODES) >= 3);
  check_splits();
  check_steps();
  require(options().model == MERGED || count<Unit>(TRIE));
  require(options().model != SCORED || count<double>(SCORES) == tokens + 1);
  tokens_ = tokens;
  text_ = at<uint8_t>(TEXT);
  text_size_ = count<uint8_t>(TEXT);
  text_at_ = at<uint32_t>(TEXT_AT);
  slots_ = at<uint32_t>(SLOTS);
  merges_ = at<Merge>(MERGES);
  slot_mask_ = slots - 1;
  merge_mask_ = merges - 1;
  safe_mask_ = 8 * count<uint8_t>(SAFE) - 1;
}

// Characters are written out: they must be some.
void Form::check_normal() const {
  auto valid = [](uint32_t c) { return c < 0xd800 || (c >= 0xe000 && c < 0x110000); };
  size_t parts = count<uint32_t>(PARTS);
  for (Section s : {TAKEN, SPELLED})
    for (size_t i = 0; i < count<Triple>(s); i++) {
      const Triple& t = at<Triple>(s)[i];
      require(t.b <= parts && t.c <= parts - t.b);
    }
  require(std::all_of(at<uint32_t>(PARTS), at<uint32_t>(PARTS) + parts, valid));
  for (size_t i = 0; i < count<Triple>(COMPOSED); i++) require(valid(at<Triple>(COMPOSED)[i].c));
}

void Form::check_table(Section first, Section second, size_t limit) const {
  size_t blocks = count<uint8_t>(second) / 128;
  require(count<uint16_t>(first) == 0x110000 / 128);
  const uint16_t* at_ = at<uint16_t>(first);
  for (size_t i = 0; i < 0x110000 / 128; i++) require(at_[i] < blocks);
  const uint8_t* values = at<uint8_t>(second);
  require(std::all_of(values, values + 128 * blocks, [&](uint8_t v) { return v < limit; }));
}

void Form::check_splits() const {
  const uint16_t* entries = at<uint16_t>(STATES);
  const uint8_t* classes = at<uint8_t>(CLASSES);
  size_t all = count<uint16_t>(STATES), blocks = count<uint8_t>(CLASSES) / 128;
  uint32_t most = blocks ? *std::max_element(classes, classes + 128 * blocks) : 0;
  for (size_t i = 0; i < count<Split>(SPLITS); i++) {
    const Split& s = at<Split>(SPLITS)[i];
    require(s.states && s.states < DEAD && s.classes < 256 && s.classes > most);
    uint64_t size = (uint64_t)s.states * (s.classes + 1);
    require(s.begin <= all && size <= all - s.begin);
    for (size_t k = 0; k < size; k++) {
      uint16_t next = entries[s.begin + k] >> 1;
      require(next < s.states || next == DEAD);
    }
  }
}

// What is put into texts is valid UTF-8.
void Form::check_steps() const {
  std::string_view inserted(at<char>(INSERTED), count<char>(INSERTED));
  require(is_utf8(inserted) && is_utf8({at<char>(REPLACED), count<char>(REPLACED)}));
  require(options().cuts <= count<Split>(SPLITS));
  auto begins = [&](size_t i) { return i == inserted.size() || (inserted[i] & 0xc0) != 0x80; };
  for (size_t i = 0; i < count<Step>(STEPS); i++) {
    const Step& s = at<Step>(STEPS)[i];
    if (s.kind != REPLACE) continue;
    require(s.a < count<Split>(SPLITS) && s.b <= inserted.size() && s.c <= inserted.size() - s.b);
    require(begins(s.b) && begins(s.b + s.c));
  }
}

std::string_view Form::text(uint32_t token) const {
  if (token >= tokens_) return {};
  uint32_t a = text_at_[token], b = text_at_[token + 1];
  if (a > b || b > text_size_) return {};
  return {(const char*)text_ + a, b - a};
}

uint32_t Form::find(const uint8_t* p, size_t n) const {
  uint64_t at = hash(p, n);
  for (uint32_t i = 0; i < PROBES; i++, at++) {
    uint32_t slot = slots_[at & slot_mask_];
    if (!slot) break;
    std::string_view found = text(slot - 1);
    if (found.size() == n && !memcmp(found.data(), p, n)) return slot - 1;
  }
  return NONE;
}

const Merge* Form::merge(uint32_t left, uint32_t right) const {
  uint64_t at = hash(left, right);
  for (uint32_t i = 0; i < PROBES; i++, at++) {
    const Merge& m = merges_[at & merge_mask_];
    if (m.token == NONE) break;
    if (m.left == left && m.right == right) return m.token < tokens_ ? &m : nullptr;
  }
  return nullptr;
}

bool Form::inside(uint32_t before, uint32_t after) const {
  uint64_t bit = hash(before, after) & safe_mask_;
  return at<uint8_t>(SAFE)[bit >> 3] >> (bit & 7) & 1;
}

}  // namespace vocabulary
