// Functions whose bits are the same on every platform: only operations that IEEE 754 rounds exactly, in a fixed order.
#pragma once

#include <cmath>

namespace qmill {

struct SineCosine {
  double sine;
  double cosine;
};

// Of 2 pi * turns, for turns in [0, 1], to about 1e-16.
inline SineCosine sine_cosine(double turns) {
  const int quarter = static_cast<int>(turns * 4 + 0.5);
  const double angle = (turns - quarter * 0.25) * 6.283185307179586;  // within [-pi/4, pi/4]
  const double square = angle * angle;
  double sine = 1, cosine = 1;  // Taylor, by Horner: what is cut off is below 1e-17
  for (int k = 18; k >= 2; k -= 2) {
    cosine = 1 - cosine * square / (k * (k - 1));
    sine = 1 - sine * square / (k * (k + 1));
  }
  sine *= angle;
  switch (quarter % 4) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

// Of a normal positive number, to about 1e-16 of max(1, |log x|).
inline double natural_logarithm(double x) {
  int exponent = 0;
  double fraction = std::frexp(x, &exponent);
  if (fraction < 0.7071067811865476) {
    fraction *= 2;
    --exponent;
  }
  const double s = (fraction - 1) / (fraction + 1);  // log f = 2 atanh s, |s| < 0.172
  const double square = s * s;
  double sum = 0;
  for (int k = 23; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
  return exponent * 0.6931471805599453 + 2 * s * sum;
}

}  // namespace qmill
