# The worker's image. Node runs the TypeScript as it is, so nothing is compiled; the lock file decides what is installed.
# Any base will do that has Node 24, npm, sh and the user node (uid 1000).
ARG NODE_IMAGE=node:24-slim

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# Without optional packages, for TypeScript is an optional peer of one. No program reads declarations and source maps:
# a third of the rest.
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund \
  && find node_modules -type f \( -name '*.d.ts' -o -name '*.d.?ts' -o -name '*.map' \) -delete

FROM ${NODE_IMAGE}
LABEL org.opencontainers.image.title="fleettickets" \
  org.opencontainers.image.version="1.0.1" \
  org.opencontainers.image.description="A CSV of field-ops tickets in a bucket becomes typed, placed tickets in Postgres." \
  org.opencontainers.image.licenses="MIT"
ENV NODE_ENV=production
WORKDIR /app
RUN ln -s /app/src/cli.ts /usr/local/bin/fleettickets
COPY --from=dependencies /app/node_modules ./node_modules
COPY . .
# graphile-migrate leaves what it commits readable to its owner only, until git has it.
RUN chmod a+r migrations/committed/*
# Coolify gives it when told to; last, because every commit changes it.
ARG SOURCE_COMMIT=unknown
LABEL org.opencontainers.image.revision="${SOURCE_COMMIT}"

# The files are root's: the worker cannot change its own code. It writes nothing, so the root file system may be read-only.
USER node
STOPSIGNAL SIGTERM
# Healthy means that this worker reaches the database and its schema is current. Up to five and a half minutes may pass
# until then: a migration takes its time. Coolify waits the start period, then looks `retries` times, every `interval`.
HEALTHCHECK --start-period=30s --interval=30s --retries=10 --timeout=10s CMD ["fleettickets", "healthcheck"]
# No shell in between: the worker is PID 1 and gets the SIGTERM itself.
ENTRYPOINT []
CMD ["fleettickets", "worker", "--migrate"]
