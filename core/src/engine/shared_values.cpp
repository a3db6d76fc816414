#include "engine/shared_values.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {

void SharedValues::forget_old() {
  std::size_t kept = 0;
  slots_.remove_if([&](const std::shared_ptr<Slot>& slot) { return slot->is_done && ++kept > kKept; });
}

std::shared_ptr<const void> SharedValues::get(const std::string& key, const std::function<std::shared_ptr<const void>()>& make,
                                              TaskPool& tasks) {
  std::shared_ptr<Slot> slot;
  bool is_maker = false;
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(slots_.begin(), slots_.end(), [&](const std::shared_ptr<Slot>& each) { return each->key == key; });
    if (found != slots_.end()) {
      slots_.splice(slots_.begin(), slots_, found);
      slot = slots_.front();
      if (!slot->is_done && slot->maker == std::this_thread::get_id())
        throw Error(ErrorKind::plugin, fmt::format("making the shared value '{}' asks for that value", key));
    } else {
      is_maker = true;
      slot = std::make_shared<Slot>();
      slot->key = key;
      slot->maker = std::this_thread::get_id();
      slots_.push_front(slot);
    }
  }
  if (is_maker) {
    try {
      slot->value = make();
    } catch (...) {
      slot->failure = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      slot->is_done = true;
      if (slot->failure) slots_.remove(slot);
      forget_old();
    }
    tasks.wake_helpers();
  } else {
    tasks.help_until([&] { return slot->is_done.load(); });
  }
  if (slot->failure) std::rethrow_exception(slot->failure);
  return slot->value;
}

}  // namespace qmill
