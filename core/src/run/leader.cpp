#include "run/leader.h"

#include <qmill/core/logging.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

using Kind = CrewMessage::Kind;

std::string rank_text(int rank) { return fmt::format("rank {}", rank); }

std::string difference(const std::string& theirs, const std::string& ours) {
  const std::size_t line = ours.find('\n'), other = theirs.find('\n');
  if (theirs.substr(0, other) != ours.substr(0, line))
    return fmt::format("its output is '{}', that of rank 0 '{}'", theirs.substr(0, other), ours.substr(0, line));
  const std::string file = differing_file(theirs.substr(other + 1), ours.substr(line + 1));
  return file.empty() ? "its plan is not that of rank 0" : fmt::format("its '{}' is not the file of rank 0", file);
}

}  // namespace

Leader::Leader(Peers& peers, const std::string& identity, const std::atomic<bool>* cancel)
    : Crew(peers, cancel), done_(static_cast<std::size_t>(peers.count())), heard_(done_.size(), Clock::now()) {
  done_[0] = true;
  try {
    gather(identity);
  } catch (const Error& error) {
    end(&error);
    throw;
  }
}

Leader::~Leader() {
  const Error gone(ErrorKind::internal, "rank 0 has left the run");
  end(&gone);
  stop();
}

void Leader::gather(const std::string& identity) {
  std::vector<bool> known(done_.size());
  known[0] = true;
  const Clock::time_point start = Clock::now();
  bool has_told = false;
  for (auto missing = known.begin(); (missing = std::find(known.begin(), known.end(), false)) != known.end();) {
    throw_if_cancelled();
    const std::optional<Peers::Mail> mail = peers_.receive(kTick);
    if (!has_told && Clock::now() - start > peers_.patience()) {
      has_told = true;
      log(LogLevel::normal, fmt::format("waiting for rank {}, which has no plan yet", missing - known.begin()));
    }
    if (!mail) continue;
    const CrewMessage message = parse_crew_message(mail->text);
    if (message.kind == Kind::failed) throw Error(*message.error).in(rank_text(mail->from));
    if (message.kind != Kind::hello) continue;
    if (message.text != identity) {
      throw Error(ErrorKind::usage, fmt::format("it would make another output: {}", difference(message.text, identity)),
                  "give all ranks the same options, the same version of qmill and of its plugins, and the same files")
          .in(rank_text(mail->from));
    }
    known[static_cast<std::size_t>(mail->from)] = true;
  }
}

void Leader::begin(WorkStart start) {
  std::stable_sort(start.units.begin(), start.units.end(), [](const WorkUnit& a, const WorkUnit& b) { return a.cost > b.cost; });
  units_.assign(std::make_move_iterator(start.units.begin()), std::make_move_iterator(start.units.end()));
  std::fill(heard_.begin(), heard_.end(), Clock::now());
  send_all({Kind::begin, {}, {}, {}, {}});
  Crew::begin(std::move(start));
}

void Leader::handle(int from, const CrewMessage& message) {
  const auto rank = static_cast<std::size_t>(from);
  {
    const std::lock_guard lock(mutex_);
    heard_[rank] = Clock::now();
    if (message.kind == Kind::done) done_[rank] = true;
  }
  changed_.notify_all();
  if (message.kind == Kind::want) send(from, {Kind::work, {}, next(), {}, {}});
  if (message.kind == Kind::failed) throw Error(*message.error).in(rank_text(from));
  for (const FinishedDecision& one : message.finished) finished(one);
}

void Leader::require_alive() {
  const std::lock_guard lock(mutex_);
  for (std::size_t rank = 1; rank < heard_.size(); ++rank)
    if (!done_[rank] && Clock::now() - heard_[rank] > peers_.patience()) throw silent(static_cast<int>(rank));
}

void Leader::send_all(const CrewMessage& message) {
  for (int rank = 1; rank < peers_.count(); ++rank) send(rank, message);
}

std::vector<std::size_t> Leader::next() {
  const std::lock_guard lock(mutex_);
  if (units_.empty() || failure_ || ended_) return {};
  std::vector<std::size_t> decisions = std::move(units_.front().decisions);
  units_.pop_front();
  return decisions;
}

void Leader::finished(FinishedDecision finished) {
  const std::lock_guard lock(finished_mutex_);
  start_.on_finished(finished);
}

void Leader::complete() {
  wait([this] { return std::find(done_.begin(), done_.end(), false) == done_.end(); });
}

void Leader::end(const Error* error) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
  }
  try {
    send_all({Kind::end, error == nullptr ? "" : error->what(), {}, {}, {}});
  } catch (...) {
    // Who does not hear it, hears nothing any more, and ends by itself.
  }
}

void leave(Peers& peers, const std::string& why) {
  try {
    const Error error(ErrorKind::io, why);
    if (peers.rank() != 0) return peers.send(0, crew_text({Kind::failed, {}, {}, {}, error}));
    for (int rank = 1; rank < peers.count(); ++rank) peers.send(rank, crew_text({Kind::end, why, {}, {}, {}}));
  } catch (...) {
    // The others notice that this rank says nothing.
  }
}

Peers::~Peers() = default;

}  // namespace qmill
