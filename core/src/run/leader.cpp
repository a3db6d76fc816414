#include "run/leader.h"

#include <qmill/core/logging.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

using Kind = CrewMessage::Kind;


std::string rank_text(int rank) { return fmt::format("rank {}", rank); }

Error silent(int rank, std::chrono::seconds patience) {
  Error error(ErrorKind::io, fmt::format("it has said nothing for {} s", patience.count()), "see whether its machine and its disk answer");
  return error.in(rank_text(rank));
}

}  // namespace

Leader::Leader(Peers& peers, const std::string& digest, const std::atomic<bool>* cancel)
    : peers_(peers), cancel_(cancel), done_(static_cast<std::size_t>(peers.count())), heard_(done_.size(), Clock::now()) {
  done_[0] = true;
  try {
    gather(digest);
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

void Leader::throw_if_cancelled() const {
  if (cancel_ != nullptr && *cancel_) throw Error(ErrorKind::cancelled, "interrupted");
}

void Leader::gather(const std::string& digest) {
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
    if (message.text != digest)
      throw Error(ErrorKind::usage, fmt::format("it would make another output (its plan is {}, that of rank 0 {})", message.text, digest),
                  "give all ranks the same options, the same version of qmill and of its plugins, and the same files")
          .in(rank_text(mail->from));
    known[static_cast<std::size_t>(mail->from)] = true;
  }
}

void Leader::begin(WorkStart start) {
  std::stable_sort(start.units.begin(), start.units.end(), [](const WorkUnit& a, const WorkUnit& b) { return a.cost > b.cost; });
  units_.assign(std::make_move_iterator(start.units.begin()), std::make_move_iterator(start.units.end()));
  start_ = std::move(start);
  std::fill(heard_.begin(), heard_.end(), Clock::now());
  send_all({Kind::begin, {}, {}, {}, {}});
  listener_ = std::thread([this] { listen(); });
}

void Leader::listen() {
  Clock::time_point beat = Clock::now();
  const auto is_over = [this] {
    const std::lock_guard lock(mutex_);
    return ended_ || stopping_;
  };
  while (!is_over()) {
    try {
      if (const std::optional<Peers::Mail> mail = peers_.receive(kTick)) handle(*mail);
      require_alive();
      if (Clock::now() - beat < kBeat) continue;
      beat = Clock::now();
      send_all({});
    } catch (...) {
      fail(std::current_exception());
      return;
    }
  }
}

void Leader::handle(const Peers::Mail& mail) {
  const CrewMessage message = parse_crew_message(mail.text);
  const auto rank = static_cast<std::size_t>(mail.from);
  {
    const std::lock_guard lock(mutex_);
    heard_[rank] = Clock::now();
    if (message.kind == Kind::done) done_[rank] = true;
  }
  changed_.notify_all();
  if (message.kind == Kind::want) peers_.send(mail.from, crew_text({Kind::work, {}, take_unit(), {}, {}}));
  if (message.kind == Kind::failed) throw Error(*message.error).in(rank_text(mail.from));
  for (const FinishedDecision& one : message.finished) finished(one);
}

void Leader::require_alive() {
  const std::lock_guard lock(mutex_);
  for (std::size_t rank = 1; rank < heard_.size(); ++rank)
    if (!done_[rank] && Clock::now() - heard_[rank] > peers_.patience()) throw silent(static_cast<int>(rank), peers_.patience());
}

void Leader::fail(std::exception_ptr failure) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = failure;
  }
  changed_.notify_all();
  start_.on_failure(std::move(failure));
}

void Leader::send_all(const CrewMessage& message) {
  for (int rank = 1; rank < peers_.count(); ++rank) peers_.send(rank, crew_text(message));
}

std::vector<std::size_t> Leader::take_unit() {
  const std::lock_guard lock(mutex_);
  if (units_.empty() || failure_ || ended_) return {};
  std::vector<std::size_t> decisions = std::move(units_.front().decisions);
  units_.pop_front();
  return decisions;
}

std::vector<std::size_t> Leader::next() { return take_unit(); }

void Leader::finished(FinishedDecision finished) {
  const std::lock_guard lock(finished_mutex_);
  start_.on_finished(finished);
}

void Leader::complete() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kTick, [&] { return failure_ || std::find(done_.begin(), done_.end(), false) == done_.end(); }))
    throw_if_cancelled();
  if (failure_) std::rethrow_exception(failure_);
}

void Leader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  if (listener_.joinable()) listener_.join();
}

void Leader::end(const Error* error) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
  }
  try {
    send_all({Kind::end, error == nullptr ? "" : error->what(), {}, {}, {}});
  } catch (const Error&) {
    // Who does not hear it, hears nothing any more, and ends by itself.
  }
}

void leave(Peers& peers, const std::string& why) {
  try {
    const Error error(ErrorKind::io, why);
    if (peers.rank() != 0) return peers.send(0, crew_text({Kind::failed, {}, {}, {}, error}));
    for (int rank = 1; rank < peers.count(); ++rank) peers.send(rank, crew_text({Kind::end, why, {}, {}, {}}));
  } catch (const Error&) {
    // The others notice that this rank says nothing.
  }
}

Peers::~Peers() = default;

}  // namespace qmill
