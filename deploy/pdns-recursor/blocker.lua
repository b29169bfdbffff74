-- A zone with `carries = "inspect"` goes before the zone that blocks. An inspected host has no MX, TXT or CAA records then:
-- mail servers need another resolver. `refresh`: seconds between two looks for a new version.
-- `dumpFile` and `seedFile` let a restart begin with what was enforced last.
rpzPrimary({"192.0.2.10:5354"}, "police.rpz.example", {
  tsigname = "resolver",
  tsigalgo = "hmac-sha256",
  tsigsecret = "SECRET",
  refresh = 5,
  seedFile = "/var/lib/powerdns/police.rpz.example.zone",
  dumpFile = "/var/lib/powerdns/police.rpz.example.zone",
})
