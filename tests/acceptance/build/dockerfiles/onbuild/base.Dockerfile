FROM busybox
ONBUILD ARG FLAVOUR=plain
ONBUILD COPY . /app/
ONBUILD RUN echo "built as $FLAVOUR" > /app/flavour
WORKDIR /app
SHELL ["/bin/sh", "-euc"]
CMD cat flavour main.txt
