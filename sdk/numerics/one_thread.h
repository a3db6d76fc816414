#pragma once

#include <qmill/numerics/one_thread.h>
