#include "run/crew.h"

#include <fmt/format.h>

namespace qmill {

Crew::~Crew() { stop(); }

void Crew::begin(WorkStart start) {
  start_ = std::move(start);
  listener_ = std::thread([this] { listen(); });
  beater_ = std::thread([this] { beat_until_stopped(); });
}

void Crew::stop() {
  stopping_ = true;
  if (listener_.joinable()) listener_.join();
  if (beater_.joinable()) beater_.join();
}

// Also after a failure, so that no message stays on the way.
void Crew::listen() {
  while (!stopping_) {
    try {
      if (const std::optional<Peers::Mail> mail = peers_.receive(kTick))
        handle(mail->from, parse_crew_message(mail->text));
      else
        require_alive();
      throw_if_cancelled();
    } catch (...) {
      fail(std::current_exception());
    }
  }
}

void Crew::beat_until_stopped() {
  Clock::time_point next = Clock::now();
  while (!stopping_) {
    std::this_thread::sleep_for(kTick);
    if (Clock::now() < next) continue;
    next = Clock::now() + kBeat;
    try {
      beat();
    } catch (...) {
      fail(std::current_exception());
    }
  }
}

void Crew::fail(std::exception_ptr failure) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = failure;
  }
  changed_.notify_all();
  start_.on_failure(std::move(failure));
}

void Crew::throw_if_cancelled() const {
  if (cancel_ != nullptr && *cancel_) throw Error(ErrorKind::cancelled, "interrupted");
}

Error Crew::silent(int rank) const {
  Error error(ErrorKind::io, fmt::format("it has said nothing for {} s", peers_.patience().count()),
              "see whether its machine and its disk answer");
  return error.in(fmt::format("rank {}", rank));
}

}  // namespace qmill
