# The worker's image. Debian rather than Alpine: DuckDB's and Temporal's native libraries are built for glibc.
FROM node:20-bookworm-slim AS build
WORKDIR /app
# Packages first: they change less often than the sources, and stay cached.
COPY package.json package-lock.json ./
COPY scripts/ensure-packages.mjs scripts/
RUN node scripts/ensure-packages.mjs
COPY tsconfig.json tsconfig.build.json ./
COPY scripts/ scripts/
COPY src/ src/
RUN npm run build && npm prune --omit=dev

FROM node:20-bookworm-slim
# Certificate authorities, for TLS to Temporal and to PostgreSQL; the slim image has none.
RUN apt-get update \
  && apt-get install --yes --no-install-recommends ca-certificates \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /app
ENV NODE_ENV=production
COPY --from=build /app/node_modules/ node_modules/
COPY --from=build /app/dist/ dist/
COPY package.json LICENSE README.md replication.example.toml ./
COPY scripts/worker-health.mjs scripts/
# A named volume mounted here takes over the owner, so that the worker can write although it is not root.
RUN mkdir /data && chown node:node /data
VOLUME /data
USER node
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=6 CMD ["node", "scripts/worker-health.mjs"]
# node itself is the container's process, so that SIGTERM reaches the worker, which drains and exits 0.
CMD ["node", "dist/worker.js"]
