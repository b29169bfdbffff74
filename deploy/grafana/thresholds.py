"""Figures from which on something is wrong; panels draw them. An alert on the same metric begins there, too."""

# Seconds since canaries were looked at: BlockerCanaryStale.
CANARY_AGE_SECONDS = 300
# Seconds that a node may be behind the store: a large list takes some to be enforced.
FOLLOWER_LAG_SECONDS = 120
# Seconds in which 99 of 100 decisions must be made: a hundred times what one takes.
DECISION_SECONDS = 0.0001
# Share of the connections that may be open.
CONNECTIONS_SHARE = 0.8
# Seconds that an event loop may be late: a gateway's clients wait so long, too.
LOOP_LAG_SECONDS = 0.2
# Share of the age limit of a list at which somebody should look.
AGE_SHARE = 0.8
# Seconds that a version may wait for a second person: half a working day.
PROPOSAL_SECONDS = 4 * 3600
# Seconds since a zone was compared with the lists: BlockerZoneUnchecked.
ZONE_CHECK_AGE_SECONDS = 300
# Seconds until the zones' certificate ends: BlockerZoneCertificateExpiring.
ZONE_CERTIFICATE_SECONDS = 7 * 86_400
# Share of forwarded questions that may come to nothing: BlockerQuestionsUnanswered.
UNANSWERED_SHARE = 0.25
# Share of the questions that may wait: BlockerQuestionsNearLimit.
WAITING_SHARE = 0.8
