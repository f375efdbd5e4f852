"""The consent: connect link → interstitial → Google → callback → grant. It hands out no token."""
