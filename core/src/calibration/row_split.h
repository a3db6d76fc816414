// Which rows are kept apart.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace qmill {

// Of those that are kept apart, as many are handed out at most: more would cost time and tell little more.
inline constexpr std::int64_t kMostKeptRows = 1024;

// Of each run of five consecutive rows one, chosen by the seed and the number of the run alone: the same rows of every tensor.
// Rows that fill no run are all fitted to.
class RowSplit {
 public:
  static constexpr std::int64_t kRun = 5;

  RowSplit(std::int64_t rows, std::int64_t seed) : rows_(rows), seed_(static_cast<std::uint64_t>(seed)) {}

  std::int64_t rows() const { return rows_; }
  std::int64_t kept_apart() const { return rows_ / kRun; }
  std::int64_t fitted() const { return rows_ - kept_apart(); }

  std::int64_t kept_row(std::int64_t run) const {
    return run * kRun + static_cast<std::int64_t>(mixed(static_cast<std::uint64_t>(run)) % kRun);
  }
  bool is_kept_apart(std::int64_t row) const { return row / kRun < kept_apart() && kept_row(row / kRun) == row; }

  // Those of rows [begin, end) that are fitted to.
  std::vector<std::int64_t> fitted_rows(std::int64_t begin, std::int64_t end) const {
    std::vector<std::int64_t> rows;
    for (std::int64_t row = begin; row < end; ++row)
      if (!is_kept_apart(row)) rows.push_back(row);
    return rows;
  }

  // At most `limit` of those that are kept apart, evenly spaced over all of them.
  std::vector<std::int64_t> kept_rows(std::int64_t limit) const {
    const std::int64_t count = std::min(limit, kept_apart());
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < count; ++i) rows.push_back(kept_row(kept_apart() / count * i + kept_apart() % count * i / count));
    return rows;
  }

 private:
  // The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
  std::uint64_t mixed(std::uint64_t run) const {
    std::uint64_t z = seed_ + 0x9e3779b97f4a7c15u * (run + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  std::int64_t rows_;
  std::uint64_t seed_;
};

}  // namespace qmill
